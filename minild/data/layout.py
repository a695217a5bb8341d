"""What lies in a folder of pictures, and which of it is whose split, by the rules of the reference's `imagefolder`."""

import functools
import os
import re
from pathlib import PurePath
from typing import NamedTuple

from minild.data import metadata
from minild.data.decode import extensions
from minild.errors import UserError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# A name is of a split if it holds one of the split's words as a whole, between these characters or its ends.
SEPARATORS = "-._ 0-9"
PATTERNS = {
    split: re.compile(f"(.*[{SEPARATORS}])?({'|'.join(words)})([{SEPARATORS}].*)?", re.IGNORECASE | re.DOTALL)
    for split, words in SPLITS.items()
}

# Files that may hold captions: tables; and texts, if they are called so or as a picture is.
TABLES = {".arrow", ".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv", ".xlsx"}
TEXTS = {".cap", ".caption", ".captions", ".tags", ".txt"}
CAPTION_WORDS = re.compile("annotation|caption|description|label|metadata|prompt", re.IGNORECASE)
NO_CAPTIONS = {"config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json"}  # nor for the reference
PACKED = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"}

UNREAD = f"captions are read from {', '.join(metadata.NAMES[:-1])} or {metadata.NAMES[-1]} alone"

DEEPEST, MOST_LINKS = 50, 3  # folders within each other, and of those the ones that are links
MOST_FILES = 1_000_000

FOREIGN = "outside the folders of the splits"


class Contents(NamedTuple):
    """A folder's files, by their paths relative to it, in the order of names."""

    pictures: list
    metadata: list
    passed_over: list  # (path, reason) of every other file, and of the folders that were not entered


class Part(NamedTuple):
    """The part of a folder that is one split's."""

    split: str  # "validation" where that serves as the test
    pictures: list
    metadata: list  # the files to read captions from; none where folders name them
    passed_over: list  # (path, reason)
    split_of: callable  # a path -> the split that it is of, or None
    has_test: bool  # the folder has a part for the test, or for validation


def survey(folder):
    """Everything below a folder, links to folders followed -> Contents. UserError for more than MOST_FILES files.

    Followed are MOST_LINKS links within each other, and DEEPEST folders; of links within a linked folder only those to
    a folder that no link led to before. With links, a few folders can spell more paths than there is time for.
    """
    endings, contents = extensions(), Contents([], [], [])
    _survey(folder, PurePath(), (os.path.realpath(folder),), 0, set(), endings, contents)
    names = {name for path in contents.pictures for name in (path.stem, path.name)}
    passed_over = [(path, reason or _unwanted(path, path.stem in names)) for path, reason in contents.passed_over]
    return contents._replace(passed_over=passed_over)


def _survey(folder, here, trail, links, entered, endings, contents):
    """trail: the real paths of this folder and of those it is in, of which so many are links; a link back to one of
    them ends there. entered: the real paths that links led to.
    """
    with os.scandir(folder / here) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        path, is_folder = here / entry.name, entry.is_dir()
        if entry.name.startswith("."):
            if is_folder or path.suffix.lower() in endings:
                contents.passed_over.append((path, "hidden"))
        elif is_folder:
            real = os.path.realpath(entry.path)
            if entry.name.startswith("__"):
                contents.passed_over.append((path, "a name that begins with two underscores"))
            elif real in trail:
                contents.passed_over.append((path, "a link to a folder that it is in"))
            elif len(trail) > DEEPEST or links + entry.is_symlink() > MOST_LINKS:
                contents.passed_over.append((path, "too many folders or links within each other"))
            elif links and entry.is_symlink() and real in entered:
                contents.passed_over.append((path, "a link within a link, to a folder that was entered before"))
            else:
                entered |= {real} if entry.is_symlink() else set()
                _survey(folder, path, (*trail, real), links + entry.is_symlink(), entered, endings, contents)
        elif path.suffix.lower() in endings:
            contents.pictures.append(path)
        elif entry.name in metadata.NAMES:
            contents.metadata.append(path)
        else:
            contents.passed_over.append((path, None))
        if sum(map(len, contents)) > MOST_FILES:
            raise UserError(f"{folder} holds more than {MOST_FILES:,} files")


def _unwanted(path, named_like_picture):
    """Why a file that is neither a picture nor metadata is passed over."""
    ending = path.suffix.lower()
    if ending in TABLES and path.name not in NO_CAPTIONS:
        return UNREAD
    if ending in TEXTS and (named_like_picture or CAPTION_WORDS.search(path.stem)):
        return UNREAD
    return "packed: unpack it to use what it holds" if ending in PACKED else "no picture that Pillow opens"


@functools.cache
def _splits_in(name):
    """The splits whose words a name holds -> frozenset."""
    return frozenset(split for split, pattern in PATTERNS.items() if pattern.fullmatch(name))


def _by_folder(path):
    return frozenset().union(*map(_splits_in, path.parent.parts))


def _by_name(path):
    return _splits_in(path.name)


def below_split(path):
    """The parts of a path that come after the folder that gives it its split; all of them where none does."""
    parts = path.parts
    first = next((i for i, name in enumerate(parts[:-1]) if _splits_in(name)), -1)
    return parts[first + 1 :]


def part_of(folder, contents, split):
    """The pictures of a split, and the metadata files that caption them -> Part.

    By the names of folders, if any of them is a split's; if not, by the names of pictures; if not, all is training.
    Validation serves as the test where there is no test; and where there is neither, the Part is that of training.
    UserError for a folder without training, for a picture of two splits, and for pictures some of whose names are of a
    split and some are not.
    """
    split_of = _split_function(folder, contents)
    there = {split_of(path) for path in (*contents.pictures, *contents.metadata)} - {None}
    if there and "train" not in there:
        path = next(path for path in (*contents.pictures, *contents.metadata) if split_of(path))
        raise UserError(f"{folder} has no training pictures ({path} is of {split_of(path)}): add a folder train")
    wanted = "train"
    if split == "test":
        wanted = next((name for name in ("test", "validation") if name in there), "train")
    pictures = [path for path in contents.pictures if split_of(path) == wanted]
    inner = [path for path in contents.metadata if split_of(path) == wanted]
    outer = [path for path in contents.metadata if split_of(path) is None]
    passed_over = [(path, FOREIGN) for path in contents.pictures if split_of(path) is None]
    if "test" in there:
        validation = [path for path in contents.pictures if split_of(path) == "validation"]
        passed_over += [(path, "validation, beside a test set") for path in validation]
    if inner:
        passed_over += [(path, f"{wanted} has metadata of its own, in {inner[0]}") for path in outer]
    return Part(wanted, pictures, inner or outer, passed_over, split_of, not there <= {"train"})


def _split_function(folder, contents):
    """How this folder's paths tell their splits: a function of a path -> its split, or None. It raises where two do."""
    if any(map(_by_folder, (*contents.pictures, *contents.metadata))):
        splits_of, where = _by_folder, "its folders"
    elif any(map(_by_name, contents.pictures)):
        splits_of, where = _by_name, "its name"
    else:
        return lambda path: "train"

    def split_of(path):
        splits = splits_of(path)
        if len(splits) > 1:
            told = " and ".join(sorted(splits))
            raise UserError(f"{folder}: by {where}, {path} belongs to {told} at once: rename it")
        return next(iter(splits), None)

    if splits_of is _by_name:
        named, other = (next((p for p in contents.pictures if bool(_by_name(p)) is has), None) for has in (True, False))
        if other:
            told = f"by its name, {named} is of {split_of(named)}, and {other} of no split"
            raise UserError(f"{folder}: {told}: rename it, or put all pictures into the folders train and test")
    return split_of
