"""What of a folder is whose split, what is read for captions, and what is passed over, by paths alone."""

from pathlib import PurePath

import pytest

from minild.data.layout import FOREIGN, UNREAD, part_of, survey
from minild.errors import UserError


def build(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def split(folder, name="train"):
    """The paths of a split's pictures."""
    return [path.as_posix() for path in part_of(folder, survey(folder), name).pictures]


def passed_over(folder):
    return {path.as_posix(): reason for path, reason in survey(folder).passed_over}


def refusal(folder):
    with pytest.raises(UserError) as refused:
        split(folder)
    return str(refused.value)


WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
FORMS = ("{}", "{}-1", "{}_images", "my.{}", "the {} set", "{}2017", "2017{}", "a/b/{}/c")


@pytest.mark.parametrize("case", [str, str.upper, str.capitalize])
@pytest.mark.parametrize("form", FORMS)
def test_folders_of_every_split_word(tmp_path, form, case):
    build(tmp_path, "train/0.png")
    for kind, words in WORDS.items():
        for word in words:
            folder = case(form.format(word))
            assert part_of(tmp_path, survey(tmp_path), "train").split_of(PurePath(folder, "1.png")) == kind


@pytest.mark.parametrize("name", ["trains", "contest", "devil", "retrain", "value", "trainset", "mytest"])
def test_words_within_words_are_no_splits(tmp_path, name):
    build(tmp_path, "train/0.png", f"{name}/1.png")
    assert split(tmp_path) == ["train/0.png"]
    assert part_of(tmp_path, survey(tmp_path), "train").passed_over == [(PurePath(name, "1.png"), FOREIGN)]


def test_pictures_names_make_splits_where_no_folder_does(tmp_path):
    build(tmp_path, "a/train_1.png", "a/Training.png", "a/b-test.png", "a/01test 2.PNG")
    assert split(tmp_path) == ["a/Training.png", "a/train_1.png"]
    assert split(tmp_path, "test") == ["a/01test 2.PNG", "a/b-test.png"]
    build(tmp_path, "train/test_1.png", "train/x.png")
    assert split(tmp_path) == ["train/test_1.png", "train/x.png"]


def test_some_names_of_a_split_and_some_of_none(tmp_path):
    build(tmp_path, "crash-test-dummy.png", "z.png")
    told = "by its name, crash-test-dummy.png is of test, and z.png of no split: rename it, or put all pictures"
    assert told in refusal(tmp_path)


def test_two_splits_at_once(tmp_path):
    build(tmp_path, "train/1.png", "test/train/2.png")
    assert "by its folders, test/train/2.png belongs to test and train at once" in refusal(tmp_path)
    build(tmp_path / "names", "test-train.png")
    assert "by its name, test-train.png belongs to test and train at once" in refusal(tmp_path / "names")


def test_no_training_pictures(tmp_path):
    build(tmp_path, "docs/1.png", "test/1.png")
    assert "has no training pictures (test/1.png is of test): add a folder train" in refusal(tmp_path)


def test_validation_is_the_test_where_there_is_no_other(tmp_path):
    build(tmp_path, "train/1.png", "val/2.png", "dev/3.png")
    part = part_of(tmp_path, survey(tmp_path), "test")
    assert split(tmp_path, "test") == ["dev/3.png", "val/2.png"] and part.passed_over == [] and part.has_test
    build(tmp_path, "test/4.png")
    for name in ("train", "test"):
        part = part_of(tmp_path, survey(tmp_path), name)
        assert part.pictures == [PurePath("train/1.png") if name == "train" else PurePath("test/4.png")]
        told = "validation, beside a test set"
        assert part.passed_over == [(PurePath("dev/3.png"), told), (PurePath("val/2.png"), told)]


def test_without_a_split_all_is_training_and_test(tmp_path):
    build(tmp_path, "a/1.png", "b.png", "test.txt", "train/notes.md")  # words of files that are no pictures say nothing
    assert split(tmp_path) == split(tmp_path, "test") == ["a/1.png", "b.png"]
    assert not part_of(tmp_path, survey(tmp_path), "test").has_test


def test_a_split_s_own_metadata_goes_before_what_lies_above(tmp_path):
    build(tmp_path, "train/1.png", "train/metadata.jsonl", "test/2.png", "metadata.jsonl", "docs/metadata.csv")
    train, test = (part_of(tmp_path, survey(tmp_path), name) for name in ("train", "test"))
    assert train.metadata == [PurePath("train/metadata.jsonl")]
    assert dict(train.passed_over) == {
        PurePath(name): "train has metadata of its own, in train/metadata.jsonl"
        for name in ("docs/metadata.csv", "metadata.jsonl")
    }
    assert test.metadata == [PurePath("docs/metadata.csv"), PurePath("metadata.jsonl")] and test.passed_over == []


def test_what_is_no_picture_is_passed_over_with_a_reason(tmp_path):
    other, packed = "no picture that Pillow opens", "packed: unpack it to use what it holds"
    expected = {
        ".cache": "hidden",
        ".a.png": "hidden",
        "__MACOSX": "a name that begins with two underscores",
        "a/1.txt": UNREAD,  # beside 1.png
        "a/1.png.caption": UNREAD,
        "texts/1.txt": UNREAD,
        "a/notes.txt": other,
        "a/prompts.txt": UNREAD,
        "train.jsonl": UNREAD,
        "Metadata.jsonl": UNREAD,  # metadata.jsonl is written in small letters
        "captions.csv": UNREAD,
        "labels.TSV": UNREAD,
        "config.json": other,
        "README.md": other,
        "b.heic": other,
        "c.svg": other,
        "no ending": other,
        "more.zip": packed,
        "more.tar.gz": packed,
    }
    folders = {".cache": ".cache/2.png", "__MACOSX": "__MACOSX/3.png"}
    build(tmp_path, "a/1.png", ".DS_Store", *[folders.get(name, name) for name in expected])
    assert passed_over(tmp_path) == expected
    assert survey(tmp_path).pictures == [PurePath("a/1.png")]


def test_linked_folders_are_followed_and_end(tmp_path):
    build(tmp_path / "data", "a/1.png")
    build(tmp_path / "elsewhere", "2.png", "sub/3.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "c.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    assert split(tmp_path / "data") == ["a/1.png", "b/2.png", "b/sub/3.png", "c.png"]
    assert passed_over(tmp_path / "data") == dict.fromkeys(("a/up", "b/back"), "a link to a folder that it is in")


def test_a_train_folder_may_be_a_link(tmp_path):
    build(tmp_path / "elsewhere", "cat/2.png")
    build(tmp_path / "data", "test/cat/1.png")
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    assert split(tmp_path / "data") == ["train/cat/2.png"]
