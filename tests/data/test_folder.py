"""A folder of the user's pictures: its layouts and splits, and what is told of all that is left out."""

import json

import numpy as np
import pytest
from PIL import Image

from minild.data.folder import ImageFolder
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


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{not json", "is not JSON"),
        pytest.param("[" * 100_000, "is not JSON", id="too deep"),
        ('["a.png", "a cat"]', "expected {"),
        ('{"text": "a cat"}', "no 'file_name'"),
        ('{"file_name": "a.png"}', "no 'text'"),
        ('{"file_name": "a.png", "text": ["a", "cat"]}', "'text' must be a text"),
        ('{"file_name": 3, "text": "a cat"}', "'file_name' must be a text"),
        ('{"file_name": "a.png", "text": " "}', "caption is empty"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "not valid text"),
        ('{"file_name": "../a.png", "text": "a cat"}', "not a path within the folder"),
        ('{"file_name": "/a.png", "text": "a cat"}', "not a path within the folder"),
        ('{"file_name": "", "text": "a cat"}', "not a path within the folder"),
        ('{"file_name": "a\\u0000.png", "text": "a cat"}', r"'a\x00.png' is not a path within the folder"),
        pytest.param('{"file_name": "a.png", "text": %s}' % ("[" * 900 + "]" * 900), "got a list", id="deep"),
        ('{"file_name": 1e999, "text": "a cat"}', "'file_name' must be a text, got a float"),
        pytest.param('{"file_name": %s, "text": "a cat"}' % ("9" * 5000), "line 2", id="huge number"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, told):
    save(tmp_path / "a.png")
    describe(tmp_path, ("a.png", "a cat"), line)
    message = refusal(tmp_path)
    assert f"{tmp_path / 'metadata.jsonl'}, line 2" in message and told in message


def test_folders_that_are_no_data_set(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "none")
    assert "is not a folder" in refusal(save(tmp_path / "file" / "a.png"))
    assert "no picture has a caption" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refusal(tmp_path / "empty")
    save(tmp_path / "nameless" / "-" / "a.png")
    assert "caption is empty" in refusal(tmp_path / "nameless")
    describe(tmp_path / "latin")
    (tmp_path / "latin" / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "é"}'.encode("latin-1"))
    assert "not UTF-8" in refusal(tmp_path / "latin")
    assert "'train' or 'test'" in refusal(tmp_path, split="dev")
    assert "size" in refusal(tmp_path, size=0)
