"""Folders of captioned pictures: splits and captions as `datasets` reads them, or refused in words."""

import csv
import gc
import io
import json
import logging
import random
import warnings

import pytest
from PIL import Image

from minild.data.folder import ImageFolder
from minild.errors import UserError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")

# Endings that both know. Ours are all of Pillow's, theirs a list that lacks .avif, among others.
KINDS = "bmp dib gif ico jfif jpe jpeg jpg jp2 j2k pbm pgm ppm png apng tga tif tiff webp pcx sgi".split()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)


def jsonl(*rows):
    return "".join(json.dumps({"file_name": name, "text": text}) + "\n" for name, text in rows)


def table(*rows, header=("file_name", "text"), end="\n"):
    file = io.StringIO()
    csv.writer(file, lineterminator=end).writerows([header, *rows])
    return file.getvalue()


def parquet(*rows):
    columns = {"file_name": [name for name, _ in rows], "text": [text for _, text in rows], "n": list(range(len(rows)))}
    file = io.BytesIO()
    parquet_files.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def pictures(*names):
    return dict.fromkeys(names)


def described(folder, *names, form=jsonl, kind="jsonl"):
    """Pictures of a folder, and beside them metadata that calls each after its path."""
    prefix = f"{folder}/" if folder else ""
    rows = [(name, f"the picture {prefix}{name}") for name in names]
    return pictures(*[prefix + name for name in names]) | {f"{prefix}metadata.{kind}": form(*rows)}


def one(metadata, kind="csv"):
    """A picture, and a metadata file as it is."""
    return pictures("1.png") | {f"metadata.{kind}": metadata}


def build(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (16, 16)).save(path)  # of less Pillow makes no .ico
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def theirs(folder, cache):
    """{split: sorted [(path, caption or None)]} as the reference reads a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves a CSV file open
        try:
            builder = datasets.load_dataset_builder("imagefolder", data_dir=str(folder), cache_dir=str(cache))
            builder.download_and_prepare()
        finally:
            if any(folder.rglob("*.csv")):
                gc.collect()
    splits = {}
    for split, rows in builder.as_dataset().items():
        rows = rows.cast_column("image", datasets.Image(decode=False))
        splits[split] = []
        for row in rows:
            caption = row.get("text")
            if row.get("label") is not None:
                caption = rows.features["label"].int2str(row["label"]).replace("_", " ").replace("-", " ")
            path = row["image"]["path"].removeprefix(f"{folder}/")
            splits[split].append((path, None if caption is None else str(caption).strip()))
        splits[split].sort()
    return splits


def ours(folder):
    """The same, read by minild; only the splits that the folder itself has."""
    splits = {}
    for split in ("train", "test"):
        dataset = ImageFolder(folder, split, 2)
        paths = [entry.path.relative_to(folder).as_posix() for entry in dataset._entries if entry.caption]
        assert len(dataset) == len(paths), dataset.skipped
        splits[split] = sorted(zip(paths, [caption for _, caption in dataset]))
    return splits


def two(a, b, names=("cat/1.png", "dog/2.png")):
    """Two folders with two classes each."""
    return pictures(*[f"{folder}/{name}" for folder in (a, b) for name in names])


EQUAL = {
    "captions in jsonl": described("", "1.png", "a/2.png", "a/b/3.png"),
    "captions in csv": described("", "1.png", "a/2.png", form=table, kind="csv"),
    "captions in parquet": described("", "1.png", "a/2.png", form=parquet, kind="parquet"),
    "one level down": described("images", "1.png", "2.png"),
    "three levels down": described("a/b/c", "1.png", "2.png"),
    "one level down, csv": described("images", "1.png", "2.png", form=table, kind="csv"),
    "one level down, parquet": described("images", "1.png", "2.png", form=parquet, kind="parquet"),
    "two folders with captions each": described("a", "1.png") | described("b", "1.png", "2.png"),
    "captions here and below": described("", "1.png") | described("b", "1.png", "2.png"),
    "twice described": pictures("a/1.png") | {"metadata.jsonl": jsonl(("a/1.png", "one")),
                                              "a/metadata.jsonl": jsonl(("1.png", "two"))},
    "two captions of a picture": one(jsonl(("1.png", "one"), ("1.png", "two")), "jsonl"),
    "not all are listed": pictures("2.png") | described("", "1.png"),
    "backslashes": pictures("a/b/1.png") | {"metadata.jsonl": jsonl(("a\\b\\1.png", "one"))},
    "backslashes in csv": pictures("a/1.png") | {"metadata.csv": table(("a\\1.png", "one"))},
    "a dot first": pictures("a/1.png") | {"metadata.jsonl": jsonl(("./a/1.png", "one"))},
    "two dots within": pictures("1.png", "a/2.png") | {"metadata.jsonl": jsonl(("a/../1.png", "one"))},
    "commas, quotes and line ends": one(table(("1.png", 'a "red", big\ncat'))),
    "line ends of Windows": pictures("1.png", "2.png")
    | {"metadata.csv": table(("1.png", "one"), ("2.png", "two"), end="\r\n")},
    "blank lines": one("file_name,text\n\n1.png,one\n\n"),
    "byte order mark": one("\ufeff" + table(("1.png", "one"))),
    "byte order mark, jsonl": one("\ufeff" + jsonl(("1.png", "one")), "jsonl"),
    "columns in another order": one(table(("one", 7, "1.png"), header=("text", "n", "file_name"))),
    "more columns": one('{"n": [1, 2], "m": {"a": 2}, "text": "x", "file_name": "1.png"}\n', "jsonl"),
    "image_file_name": one('{"image_file_name": "1.png", "text": "one"}\n', "jsonl"),
    "words of other scripts": pictures("ü/猫.png") | {"metadata.jsonl": jsonl(("ü/猫.png", "ein Kätzchen 猫 🐈"))},
    "numbers": pictures("1.png", "2.png") | {"metadata.csv": table(("1.png", 7), ("2.png", 12))},
    "no final line end": one("file_name,text\n1.png,one"),
    "classes": pictures("cat/1.png", "dog/2.png", "dog/3.png"),
    "classes two deep": pictures("animals/cat/1.png", "animals/dog/2.png"),
    "endings": pictures(*[f"{kind}/1.{kind}" for kind in KINDS]),
    "endings in capitals": pictures("a/1.PNG", "b/2.Jpg", "c/3.JPEG"),
    "hidden files": pictures("cat/1.png", "dog/2.png", ".cache/cat/3.png", "cat/.4.png", ".git/5.png"),
    "what archives leave": pictures("cat/1.png", "dog/2.png", "__MACOSX/cat/3.png", "__pycache__/4.png"),
    "a readme and its like": pictures("cat/1.png", "dog/2.png") | {"README.md": "hi", "LICENSE": "free", "a.heic": "x"},
    "train and test": two("train", "test"),
    "training and testing": two("training", "testing"),
    "eval": two("train", "eval"),
    "evaluation": two("train", "evaluation"),
    "validation": two("train", "validation"),
    "valid": two("train", "valid"),
    "val": two("train", "val"),
    "dev": two("train", "dev"),
    "all three": two("train", "test") | two("valid", "dev"),
    "years": two("train2017", "val2017"),
    "words around": two("my-train_images", "the test.set"),
    "split folders below": two("data/train", "data/test"),
    "several folders of a split": two("train_a", "test_a") | two("train_b", "test b"),
    "captions in each split": described("train", "1.png", "2.png") | described("test", "3.png"),
    "captions in each split, csv": described("train", "1.png", form=table, kind="csv")
    | described("valid", "3.png", form=table, kind="csv"),
    "captions below each split": described("train/images", "1.png", "2.png") | described("test/images", "3.png"),
    "captions in all three": described("train", "1.png") | described("test", "3.png") | described("valid", "2.png"),
    "captions of a split, and of all": described("train", "1.png") | described("test", "3.png")
    | {"metadata.jsonl": jsonl(("train/1.png", "others"), ("test/3.png", "still others"))},
    "foreign folders": two("train", "test") | pictures("docs/a/1.png", "2.png", "__MACOSX/train/a/3.png"),
    "foreign captions": described("train", "1.png") | described("docs", "2.png"),
    "only training": two("train", "train"),
    "contrast is no test, nor is devil": pictures("contrast/1.png", "devil/2.png", "trains/3.png"),
    "names of pictures": pictures("a/train_1.png", "b/train_2.png", "a/test_1.png", "b/test-2.png", "a/val 1.png"),
    "names of pictures, numbers": pictures("a/train1.png", "b/train2.png", "a/01-test.png", "b/02-test.png"),
}

ANY_CASE = {
    "Train": two("Train", "Test"),
    "TRAINING": two("TRAINING", "Val"),
    "Train, captions": described("Train", "1.png") | described("Test", "2.png"),
    "Train_1.png": pictures("a/Train_1.png", "b/TRAIN_2.png", "a/Test_1.png", "b/TEST-2.png"),
}

# The reference loses these captions: with metadata outside the folders that make the splits, and with folders of uneven
# depth, or of a single name. Its splits are ours.
LOST = {
    "captions of all splits": pictures("train/1.png", "test/2.png")
    | {"metadata.jsonl": jsonl(("train/1.png", "one"), ("test/2.png", "two"))},
    "captions of all splits, csv, one down": pictures("data/train/1.png", "data/test/2.png")
    | {"data/metadata.csv": table(("train/1.png", "one"), ("test/2.png", "two"))},
    "captions of names": pictures("train_1.png", "test_1.png")
    | {"metadata.jsonl": jsonl(("train_1.png", "one"), ("test_1.png", "two"))},
    "one class": pictures("red_apple/1.png", "red_apple/2.png"),
    "uneven": pictures("cat/1.png", "animals/dog/2.png"),
    "classes, and captions in test": pictures("train/cat/1.png", "train/dog/2.png") | described("test", "3.png"),
}

REFUSED = {
    "two formats": (described("", "1.png") | {"metadata.csv": table(("1.png", "x"))}, "keep one of the two formats"),
    "no file_name": (one(table(("1.png", "x"), header=("file", "text"))), "'file', 'text'"),
    "no text": (one(table(("1.png", "x"), header=("file_name", "caption"))), "'caption'"),
    "prompt": (one('{"file_name": "1.png", "prompt": "x"}\n', "jsonl"), "'prompt'"),
    "semicolons": (one("file_name;text\n1.png;x\n"), "'file_name;text'"),
    "a comma without quotes": (one("file_name,text\n1.png,x, y\n"), "in quotes"),
    "a quote without end": (one('file_name,text\n1.png,"x\n'), "is not CSV"),
    "a missing text": (one("file_name,text\n1.png,\n"), "caption is empty"),
    "a text that means none": (one("file_name,text\n1.png,NA\n"), "counts as missing"),
    "null": (one('{"file_name": "1.png", "text": null}\n', "jsonl"), "got a NoneType"),
    "outside": (pictures("a/1.png", "1.png") | {"a/metadata.jsonl": jsonl(("../1.png", "x"))}, "not a path within"),
    "outside, with backslashes": (pictures("a/1.png") | {"a/metadata.jsonl": jsonl(("..\\1.png", "x"))}, "not a path"),
    "outside, roundabout": (pictures("a/1.png") | {"a/metadata.jsonl": jsonl(("b/../../1.png", "x"))}, "not a path"),
    "address": (one(jsonl(("file://1.png", "x")), "jsonl"), "not a path within"),
    "twice the same name": (one('{"file_name": "1.png", "text": "x", "text": "y"}\n', "jsonl"),
                            "appears twice in it"),
    "pictures alone": (pictures("1.png", "2.png"), "no picture has a caption"),
    "split folders alone": (pictures("train/1.png", "test/2.png"), "no picture has a caption"),
    "a class and train": (pictures("train/1.png", "car/2.png"), "car/2.png is passed over"),
    "two splits at once": (two("train", "test") | pictures("test/train/1.png"), "to test and train at once"),
    "two words in a name": (two("train_test_split/train", "train_test_split/test"), "at once"),
    "test alone": (two("test", "test"), "no training pictures"),
    "some names": (pictures("a/train_1.png", "b/2.png", "b/3.png"), "by its name, a/train_1.png is of train"),
    "captions elsewhere": (pictures("a/1.png") | {"captions.csv": table(("1.png", "x"))}, "captions.csv is passed"),
    "texts beside pictures": (pictures("my/1.png", "my/2.png") | {"my/1.txt": "a cat"}, "my/1.txt is passed over"),
    "train.jsonl": (pictures("images/1.png") | {"train.jsonl": jsonl(("images/1.png", "x"))}, "train.jsonl is passed"),
    "packed": ({"train.zip": b"PK"}, "unpack it"),
    "nothing": ({"README.md": "hi"}, "holds no pictures"),
}  # fmt: skip


def settle(splits):
    """The reference's splits as ours: a missing test is validation or, where there is none, the training set."""
    if "train" not in splits:
        raise ValueError("no training pictures")
    test = splits.get("test", splits.get("validation", splits["train"]))
    return {"train": splits["train"], "test": test}


@pytest.mark.parametrize("layout", EQUAL)
def test_splits_and_captions_are_the_references(tmp_path, layout):
    build(tmp_path / "data", EQUAL[layout])
    assert ours(tmp_path / "data") == settle(theirs(tmp_path / "data", tmp_path / "cache"))


@pytest.mark.parametrize("layout", ANY_CASE)
def test_any_case_is_the_references_lower_case(tmp_path, layout):
    build(tmp_path / "mixed", ANY_CASE[layout])
    build(tmp_path / "lower", {name.lower(): content for name, content in ANY_CASE[layout].items()})
    mixed = {
        split: sorted((name.lower(), caption.lower()) for name, caption in rows)
        for split, rows in ours(tmp_path / "mixed").items()
    }
    wanted = settle(theirs(tmp_path / "lower", tmp_path / "cache"))
    assert mixed == {split: [(name, caption.lower()) for name, caption in rows] for split, rows in wanted.items()}


@pytest.mark.parametrize("layout", LOST)
def test_splits_are_the_references_where_it_loses_the_captions(tmp_path, layout):
    build(tmp_path / "data", LOST[layout])
    wanted = settle(theirs(tmp_path / "data", tmp_path / "cache"))
    assert any(caption in (None, "test") for rows in wanted.values() for _, caption in rows)
    paths = {split: [name for name, _ in rows] for split, rows in ours(tmp_path / "data").items()}
    assert paths == {split: [name for name, _ in rows] for split, rows in wanted.items()}


TOPS = [[""], ["train"], ["train", "test"], ["my_train", "eval-set"], ["a/train", "a/valid"], ["train", "dev", "test"]]
FILES = "1.png 2.png 3.jpg 4.PNG a/5.png cat/6.png train_7.png".split()
STRAYS = "docs/9.png __MACOSX/1.png .cache/1.png a.heic captions.csv README.md 0.png docs/x/8.jpg train/1.txt".split()


def any_layout(rng):
    """Splits or none; in each, classes or described pictures; and what else may lie there."""
    files, described = {}, rng.random() < 0.5
    kind, form = rng.choice([("csv", table), ("jsonl", jsonl)])
    for top in rng.choice(TOPS):
        prefix = top and f"{top}/"
        if described:
            prefix += rng.choice(["", "images/", "a/b/"])
            names = rng.sample(FILES, rng.randint(1, 4))
            rows = [(name.replace("/", rng.choice("/\\")), f"a picture, {i}") for i, name in enumerate(names)]
            files[f"{prefix}metadata.{kind}"] = form(*rows[: max(1, rng.randint(0, len(rows)))])
            files |= pictures(*[prefix + name for name in names])
        else:
            for label in rng.sample(["cat", "red_dog", "blue-bird", "images", "contest"], 2):
                files |= pictures(*[f"{prefix}{label}/{name}" for name in rng.sample(FILES[:4], rng.randint(1, 3))])
    strays = rng.sample(STRAYS, rng.randint(0, 2))
    return {name: None if name.endswith(("png", "jpg")) else b"" for name in strays} | files


@pytest.mark.parametrize("seed", range(4))
def test_any_layout_is_read_as_by_the_reference_or_refused(tmp_path, seed):
    """What the reference captions is captioned alike, in the same split; and no picture is of a split but in both."""
    rng, same, unlike = random.Random(seed), 0, []
    for number in range(25):
        folder = tmp_path / str(number)
        files = any_layout(rng)
        build(folder, files)
        try:
            mine = ours(folder)
        except UserError:
            continue
        try:
            wanted = settle(theirs(folder, tmp_path / "cache"))
        except (ValueError, FileNotFoundError):  # it finds no pictures, or none for the training
            continue
        captioned = {split: {row for row in rows if row[1] is not None} for split, rows in wanted.items()}
        known = {split: {name for name, _ in rows} for split, rows in wanted.items()}
        alike = all(captioned[split] <= set(rows) for split, rows in mine.items())
        placed = all({name for name, _ in rows} <= known[split] for split, rows in mine.items())
        same += alike and any(captioned.values())
        unlike += [] if alike and placed else [(sorted(files), mine, wanted)]
    assert not unlike and same > 12


@pytest.mark.parametrize("layout", REFUSED)
def test_what_is_no_data_set_is_refused_in_words(tmp_path, layout):
    files, told = REFUSED[layout]
    build(tmp_path / "data", files)
    with pytest.raises(UserError) as refused:
        ImageFolder(tmp_path / "data", "train", 2)
    assert told in str(refused.value) and "\n" not in str(refused.value)
