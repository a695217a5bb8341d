"""A folder of the user's pictures: its layouts and splits, and what is told of all that is left out."""

import json
from pathlib import PurePath

import numpy as np
import pytest
from PIL import Image

from minild.data.folder import ImageFolder
from minild.data.layout import FOREIGN, UNREAD
from minild.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path, colour=RED, size=(12, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def describe(folder, *entries):
    """metadata.jsonl of (file_name, text) pairs, or of lines as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [e if isinstance(e, str) else json.dumps({"file_name": e[0], "text": e[1]}) for e in entries]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def shown(dataset):
    """(colour of the middle, caption) of every item."""
    middle = dataset.size // 2
    return [(tuple(picture[middle, middle].tolist()), caption) for picture, caption in dataset]


def test_metadata_gives_captions_in_its_own_order(tmp_path):
    save(tmp_path / "a.png", RED)
    save(tmp_path / "deep" / "b.jpg.png", BLUE)
    describe(tmp_path, ("deep/b.jpg.png", " a blue one "), "", ("a.png", "rød \u2028 tråd"))
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(BLUE, "a blue one"), (RED, "rød \u2028 tråd")]
    assert dataset.captions(1) == ("rød \u2028 tråd",) and dataset.captions(-2) == ("a blue one",)
    assert len(dataset) == 2 and dataset.skipped == [] and dataset.name == str(tmp_path)
    assert dataset.pictures.shape == (2, 8, 8, 3) and dataset.pictures.dtype == np.uint8


def test_metadata_saved_with_a_byte_order_mark(tmp_path):
    save(tmp_path / "a.png", RED)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "./a.png", "text": "rød"}\r\n', encoding="utf-8-sig")
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(RED, "rød")] and dataset.skipped == []


def test_sub_folders_name_their_pictures(tmp_path):
    save(tmp_path / "tabby_cat-asleep" / "1.png", RED)
    save(tmp_path / "animals" / "dog" / "1.PNG", GREEN)
    save(tmp_path / ".cache" / "1.png", BLUE)
    save(tmp_path / "loose.png", BLUE)
    (tmp_path / "animals" / "notes.txt").write_text("not a picture")
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(GREEN, "dog"), (RED, "tabby cat asleep")]
    assert dataset.skipped == [(tmp_path / "loose.png", "it has no caption in a sub-folder")]


def test_metadata_lies_anywhere_in_the_tree(tmp_path):
    save(tmp_path / "images" / "a.png", RED)
    save(tmp_path / "more" / "sub" / "b.png", BLUE)
    save(tmp_path / "more" / "c.png", GREEN)
    describe(tmp_path / "images", ("a.png", "a red one"))
    describe(tmp_path / "more", ("sub\\b.png", "a blue one"))
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(RED, "a red one"), (BLUE, "a blue one")] and dataset.notices == []
    told = "it has no caption in images/metadata.jsonl or the other metadata"
    assert dataset.skipped == [(tmp_path / "more" / "c.png", told)]
    (tmp_path / "more" / "metadata.csv").write_text("file_name,text\nc.png,a green one\n")
    told = "there are captions in images/metadata.jsonl and in more/metadata.csv: keep one of the two formats"
    assert told in refusal(tmp_path)


def test_metadata_in_csv_and_of_all_splits(tmp_path):
    save(tmp_path / "Train" / "a.png", RED)
    save(tmp_path / "Test" / "b.png", BLUE)
    rows = "Train/a.png,a red one\nTest/b.png,a blue one\nTrain/gone.png,a ghost\nimages/gone.png,another\n"
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{rows}")
    train, test = (ImageFolder(tmp_path, split, 8) for split in ("train", "test"))
    assert shown(train) == [(RED, "a red one")] and shown(test) == [(BLUE, "a blue one")]
    assert train.skipped == [(tmp_path / "Train" / "gone.png", "no such file, in line 4 of metadata.csv")]
    assert test.skipped == []
    told = "line 5 of metadata.csv names it, in no folder of a split"
    assert train.notices == [f"1 passed over ({told}): images/gone.png"]


def test_a_row_for_a_file_of_two_splits_is_refused(tmp_path):
    save(tmp_path / "train" / "a.png")
    describe(tmp_path, ("train/a.png", "a cat"), ("train/test/b.png", "a dog"))
    assert "train/test/b.png belongs to test and train at once" in refusal(tmp_path)


def test_two_captions_of_a_picture_are_two_items(tmp_path):
    save(tmp_path / "a.png", RED)
    describe(tmp_path, ("a.png", "a red one"), ("a.png", "the red one"))
    assert shown(ImageFolder(tmp_path, size=8)) == [(RED, "a red one"), (RED, "the red one")]


def test_names_are_found_as_other_systems_write_them(tmp_path):
    """macOS takes an accent apart; Windows and macOS see no difference between capitals and small letters."""
    save(tmp_path / "Ka\u0308tzchen.png", RED)
    save(tmp_path / "IMG_1.PNG", BLUE)
    save(tmp_path / "two.png", GREEN)
    save(tmp_path / "Two.png", GREEN)
    describe(tmp_path, ("K\u00e4tzchen.png", "a kitten"), ("img_1.png", "a dog"), ("TWO.png", "which?"))
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(RED, "a kitten"), (BLUE, "a dog")]
    assert dataset.skipped[0] == (tmp_path / "TWO.png", "no such file, in line 3 of metadata.jsonl")


def test_captions_from_folders_are_told_with_examples(tmp_path):
    for name in ("red_apple/1.png", "red_apple/2.png", "dog/1.png", "snow-man/1.png", "zebra/1.png"):
        save(tmp_path / name)
    notices = ImageFolder(tmp_path, size=8).notices
    examples = "'dog' for dog/1.png, 'red apple' for red_apple/1.png, 'snow man' for snow-man/1.png"
    assert notices == [f"captions come from the names of folders: {examples}"]
    save(tmp_path / "train" / "dog" / "1.png")
    assert ImageFolder(tmp_path, size=8).notices == [
        "captions come from the names of folders: 'dog' for train/dog/1.png",
        f"5 passed over ({FOREIGN}): dog/1.png, red_apple/1.png, red_apple/2.png, ...",
    ]


def test_what_is_passed_over_is_counted_and_named(tmp_path):
    describe(tmp_path / "train", ("1.png", "a cat"))
    save(tmp_path / "train" / "1.png", RED)
    save(tmp_path / "test" / "cat" / "2.png", BLUE)
    save(tmp_path / "docs" / "3.png")
    save(tmp_path / "__MACOSX" / "train" / "4.png")
    for name in ("a.heic", "b.heic", "c.heic", "d.heic", "captions.csv"):
        (tmp_path / name).touch()
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(RED, "a cat")] and dataset.skipped == []
    assert dataset.notices == [
        f"1 passed over ({FOREIGN}): docs/3.png",
        "1 passed over (a name that begins with two underscores): __MACOSX",
        "4 passed over (no picture that Pillow opens): a.heic, b.heic, c.heic, ...",
        f"1 passed over ({UNREAD}): captions.csv",
    ]
    assert len(dataset.passed_over) == 7 and dataset.passed_over[0] == (PurePath("docs/3.png"), FOREIGN)


def test_captions_that_lie_unread_are_named_where_there_are_no_others(tmp_path):
    save(tmp_path / "images" / "1.png")
    (tmp_path / "captions.csv").touch()
    passed = f"captions.csv is passed over: {UNREAD}"
    assert refusal(tmp_path).endswith(f"all captions would be 'images', a folder's name; {passed}")
    assert shown(ImageFolder(tmp_path, "test", 8)) == [(RED, "images")]  # a test may hold a single class
    save(tmp_path / "photos" / "2.png")
    assert {caption for _, caption in ImageFolder(tmp_path, size=8)} == {"images", "photos"}
    save(tmp_path / "loose" / "1.png")
    (tmp_path / "loose" / "1.txt").write_text("a cat")
    told = refusal(tmp_path / "loose")
    assert "no picture has a caption" in told and told.endswith(f"; 1.txt is passed over: {UNREAD}")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train.zip").touch()
    assert "holds no pictures: add some, and a metadata.jsonl" in refusal(tmp_path / "packed")
    assert refusal(tmp_path / "packed").endswith("train.zip is passed over: packed: unpack it to use what it holds")


def test_a_split_s_folder_is_no_caption(tmp_path):
    save(tmp_path / "train" / "1.png")
    save(tmp_path / "car" / "1.png")
    told = refusal(tmp_path)
    assert "no picture has a caption" in told and told.endswith(f"; car/1.png is passed over: {FOREIGN}")
    save(tmp_path / "train" / "train" / "1.png", BLUE)
    assert shown(ImageFolder(tmp_path, size=8)) == [(BLUE, "train")]
    save(tmp_path / "deep" / "data" / "train" / "1.png")
    assert "no picture has a caption" in refusal(tmp_path / "deep")


def test_splits_of_its_own(tmp_path):
    save(tmp_path / "train" / "cat" / "1.png", RED)
    save(tmp_path / "test" / "1.png", BLUE)
    describe(tmp_path / "test", ("1.png", "a cat"))
    assert shown(ImageFolder(tmp_path, "train", 8)) == [(RED, "cat")]
    assert shown(ImageFolder(tmp_path, "test", 8)) == [(BLUE, "a cat")]


@pytest.mark.parametrize("inner", ["", "train"])
def test_a_tenth_is_kept_for_the_test(tmp_path, inner):
    for i in range(60):
        save(tmp_path / inner / ("even" if i % 2 == 0 else "odd") / f"{i}.png", (4 * i, 0, 0))
    train, test = ([red for (red, _, _), _ in shown(ImageFolder(tmp_path, split, 4))] for split in ("train", "test"))
    assert (len(train), len(test)) == (54, 6)
    assert sorted(train + test) == [4 * i for i in range(60)]
    again = [red for (red, _, _), _ in shown(ImageFolder(tmp_path, "test", 4))]
    assert again == test != sorted(train + test)[:6]


@pytest.mark.parametrize("other", ["test", "val"])
def test_none_is_kept_where_there_is_a_test(tmp_path, other):
    for i in range(60):
        save(tmp_path / "train" / "red" / f"{i}.png")
    save(tmp_path / other / "red" / "60.png")
    assert [len(ImageFolder(tmp_path, split, 4)) for split in ("train", "test")] == [60, 1]


def test_few_pictures_are_train_and_test(tmp_path):
    for i in range(49):
        save(tmp_path / "red" / f"{i}.png")
    assert len(ImageFolder(tmp_path, "train", 4)) == len(ImageFolder(tmp_path, "test", 4)) == 49


def test_broken_pictures_are_skipped_named_and_counted(tmp_path):
    for name in ("good", "cut", "text", "empty"):
        save(tmp_path / f"{name}.png", GREEN, size=(64, 64))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    (tmp_path / "text.png").write_text("I am no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("F", (8, 8), 0.5).save(tmp_path / "float.tif")
    save(tmp_path / "unlisted.png")
    names = ["cut.png", "good.png", "text.png", "gone.png", "empty.png", "float.tif"]
    describe(tmp_path, *[(name, f"a {name}") for name in names])
    dataset = ImageFolder(tmp_path, size=8)
    assert shown(dataset) == [(GREEN, "a good.png")]
    reasons = {path.relative_to(tmp_path).as_posix(): reason for path, reason in dataset.skipped}
    assert list(reasons) == ["cut.png", "text.png", "gone.png", "empty.png", "float.tif", "unlisted.png"]
    assert "truncated" in reasons["cut.png"].lower()
    assert reasons["text.png"] == reasons["empty.png"] == "not a picture of a known format"
    assert reasons["gone.png"] == "no such file, in line 4 of metadata.jsonl"
    assert "floating-point" in reasons["float.tif"]
    assert reasons["unlisted.png"] == "it has no caption in metadata.jsonl"


def test_no_readable_picture_is_an_error_each_time(tmp_path):
    describe(tmp_path, ("gone.png", "a ghost"))
    dataset = ImageFolder(tmp_path)
    for use in (len, lambda d: d[0], lambda d: d.skipped):
        with pytest.raises(UserError, match=r"none of 1 train pictures can be used .*gone\.png: no such file"):
            use(dataset)


def refusal(folder, **settings):
    with pytest.raises(UserError) as refused:
        ImageFolder(folder, **settings)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_folders_that_are_no_data_set(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "none")
    assert "is not a folder" in refusal(save(tmp_path / "file" / "a.png"))
    assert "no picture has a caption" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refusal(tmp_path / "empty")
    save(tmp_path / "nameless" / "-" / "a.png")
    assert "caption is empty" in refusal(tmp_path / "nameless")
    describe(save(tmp_path / "unlisted" / "cat" / "a.png").parents[1])
    assert refusal(tmp_path / "unlisted").endswith("no picture has a caption in metadata.jsonl: add a line for each")
    describe(tmp_path / "latin")
    (tmp_path / "latin" / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "é"}'.encode("latin-1"))
    assert "not UTF-8" in refusal(tmp_path / "latin")
    assert "'train' or 'test'" in refusal(tmp_path, split="dev")
    assert "size" in refusal(tmp_path, size=0)


def test_a_caption_for_pictures_that_have_none(tmp_path):
    """Beside metadata that leaves one out, in a folder of bare pictures, and not where a sub-folder names them."""
    save(tmp_path / "some" / "a.png", RED)
    save(tmp_path / "some" / "b.png", BLUE)
    describe(tmp_path / "some", ("a.png", "red"))
    assert shown(ImageFolder(tmp_path / "some", size=8, caption="any")) == [(RED, "red"), (BLUE, "any")]
    save(tmp_path / "bare" / "a.png", GREEN)
    assert shown(ImageFolder(tmp_path / "bare", size=8, caption="any")) == [(GREEN, "any")]
    save(tmp_path / "named" / "a cat" / "a.png", GREEN)
    assert shown(ImageFolder(tmp_path / "named", size=8, caption="any")) == [(GREEN, "a cat")]
    with pytest.raises(UserError, match="no picture has a caption"):
        ImageFolder(tmp_path / "bare", size=8)
