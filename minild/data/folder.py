"""A folder of the user's own captioned pictures, laid out as for the reference's `imagefolder`.

    folder/metadata.jsonl     a line a picture: {"file_name": "a/0001.png", "text": "a cat on a sofa"}
    folder/a_tabby-cat/*.png  or, without it: the caption is the sub-folder's name, "a tabby cat"
    folder/train, folder/test or these two, with either of the above inside

minild.data.layout has the splits, minild.data.metadata the files with captions, minild.data.decode the pictures.
"""

import functools
import unicodedata
import zlib
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError
from tqdm import tqdm

from minild.data.decode import read_picture
from minild.data.layout import UNREAD, below_split, part_of, survey
from minild.data.metadata import Entry, clean, read_metadata
from minild.errors import UserError

METADATA = "metadata.jsonl"
ENOUGH = 50  # pictures, from which a tenth is kept for the test
EXAMPLES = 3


class ImageFolder:
    """The data set: len(d), d[i] -> ((size, size, 3) uint8 picture, caption), in the order of the metadata or of names.

    split: "train" or "test". Which pictures are whose is told by the names of folders or, if no folder's does, of the
    pictures, as in the reference but in any case: train, training; test, testing, eval, evaluation; validation, valid,
    val, dev. Validation is the test where there is no other, and is not used where there is. A folder with neither is
    split here: of 50 pictures or more a fixed tenth, chosen by a hash of the file names, is the test and no part of
    train; of fewer, both splits are all of them.

    A picture of any size and mode is cut to the square in its middle and resized. Decoding begins at once, on threads
    in the background, and whatever needs the pictures waits for them all. They then stay in memory: 10,000 of 32 x 32
    are 30 MB. A picture that cannot be read is left out; d.skipped is the list of (path, reason) of those.
    d.passed_over is that of the files and folders which are no part of the data set; d.notices, a list of lines, says
    what is to be known of it before it is used.

    caption is that of all pictures for which the folder has none, rather than leave these out.

    UserError for a folder that is not there, a broken row of metadata or an empty caption, captions in two formats, and
    pictures whose split is not clear; where none of the pictures can be read, on first use.
    """

    def __init__(self, folder, split="train", size=32, caption=None):
        if split not in ("train", "test"):
            raise UserError(f"split is 'train' or 'test', not {split!r}")
        if size < 1:
            raise UserError(f"size must be 1 pixel or more, got {size}")
        self.name, self.split, self.size = str(folder), split, size
        try:
            self._entries, self.passed_over, by_folder = _list_entries(Path(folder), split)
        except OSError as error:
            raise UserError(f"cannot read {error.filename or folder}: {error.strerror or error}") from None
        self.notices = _notices(folder, self._entries if by_folder else [], self.passed_over)
        if caption is not None:
            self._entries = [e if e.caption else e._replace(caption=caption) for e in self._entries]
        self._require_captions(by_folder)
        self._decoded = np.empty((len(self._entries), size, size, 3), np.uint8)
        # Pillow lets go of the interpreter lock while it decodes. The pool's threads end with the work, or the program.
        pool = ThreadPool()
        self._reasons = [pool.apply_async(_decode, pair) for pair in zip(self._entries, self._decoded)]
        pool.close()

    def _require_captions(self, by_folder):
        captions = {entry.caption for entry in self._entries if entry.caption}
        unread = [(path, reason) for path, reason in self.passed_over if reason == UNREAD]
        hint = "".join(f"; {path} is passed over: {reason}" for path, reason in [*unread, *self.passed_over][:1])
        add = f"a {METADATA}, or a sub-folder for each caption"
        if not self._entries:
            raise UserError(f"{self.name} holds no pictures: add some, and {add}{hint}")
        if not captions and not by_folder:
            raise UserError(f"{self.name}: no picture has a caption in {self._entries[0].origin}: add a line for each")
        if not captions:
            raise UserError(f"{self.name}: no picture has a caption: add {add}{hint}")
        if by_folder and unread and len(captions) == 1 and self.split == "train":
            raise UserError(f"{self.name}: all captions would be {captions.pop()!r}, a folder's name{hint}")

    @functools.cached_property
    def _read(self):
        """(pictures (N, size, size, 3) uint8, their captions, skipped), once all are decoded."""
        with tqdm(self._reasons, desc="pictures", delay=1) as reasons:
            outcome = [(entry, reason.get()) for reason, entry in zip(reasons, self._entries)]
        skipped = [(entry.path, reason) for entry, reason in outcome if reason]
        if len(skipped) == len(outcome):
            count, (path, reason) = len(outcome), skipped[0]
            raise UserError(f"{self.name}: none of {count} {self.split} pictures can be used ({path}: {reason})")
        kept = [i for i, (_, reason) in enumerate(outcome) if not reason]
        pictures = self._decoded[kept] if skipped else self._decoded
        return pictures, [self._entries[i].caption for i in kept], skipped

    @property
    def pictures(self):
        """All pictures, (N, size, size, 3) uint8."""
        return self._read[0]

    @property
    def skipped(self):
        """The pictures that were left out: a list of (path, reason)."""
        return self._read[2]

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        pictures, captions, _ = self._read
        return pictures[i], captions[i]

    def captions(self, i):
        """What the i-th picture may be called -> a tuple of one caption."""
        return (self._read[1][i],)


def _list_entries(folder, split):
    """The entries of one split of a folder, (path, reason) of what is no part of it, and whether folders name it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one with captioned pictures")
    contents = survey(folder)
    part = part_of(folder, contents, split)
    passed_over = [*part.passed_over, *contents.passed_over]
    if part.metadata:
        entries, elsewhere = _from_metadata(folder, contents, part)
        passed_over += elsewhere
    else:
        entries = [_from_folder(folder, path) for path in part.pictures]
    if not part.has_test and len(entries) >= ENOUGH:
        names = ["/".join(below_split(entry.path.relative_to(folder))) for entry in entries]
        held_out = _held_out(set(names))
        entries = [entry for entry, name in zip(entries, names) if (name in held_out) == (split == "test")]
    return entries, passed_over, not part.metadata


def _from_metadata(folder, contents, part):
    """The entries of a Part that metadata captions, and (path, reason) of its rows for files that are no split's.

    A file that is listed and missing is among the entries, to be skipped when it is read; and so is a picture that is
    not listed, without a caption.
    """
    first, *others = part.metadata
    other = next((path for path in others if path.suffix != first.suffix), None)
    if other:
        raise UserError(f"{folder}: there are captions in {first} and in {other}: keep one of the two formats")
    rows = [row for name in part.metadata for row in read_metadata(folder, name)]
    there, aliases = set(contents.pictures), {}
    for path in contents.pictures:
        aliases.setdefault(_plain(path), []).append(path)
    entries, elsewhere = [], []
    for row in rows:
        path = row.path.relative_to(folder)
        if path not in there and len(aliases.get(_plain(path), ())) == 1:
            (path,) = aliases[_plain(path)]
        if part.split_of(path) == part.split:
            entries.append(row._replace(path=folder / path))
        elif part.split_of(path) is None and path not in there:
            elsewhere.append((path, f"{row.origin} names it, in no folder of a split"))
    listed = {entry.path for entry in entries}
    origin = first.as_posix() if not others else f"{first.as_posix()} or the other metadata"
    unlisted = [Entry(folder / path, None, origin) for path in part.pictures if folder / path not in listed]
    return entries + unlisted, elsewhere


def _plain(path):
    """What is left of a path without what file systems see no difference in: case, and how an accent is written."""
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _from_folder(folder, path):
    """An entry with the name of its folder for a caption, unless that is the data set's own or a split's."""
    *folders, _ = below_split(path)
    if not folders:
        return Entry(folder / path, None, "a sub-folder")
    place = f"the folder {folder / path.parent}"
    return Entry(folder / path, clean(folders[-1].replace("_", " ").replace("-", " "), place), place)


def _held_out(names):
    """A tenth of the names: those with the least hashes, so that the choice is fixed, and never none."""
    hashed = sorted((zlib.crc32(name.encode(errors="surrogatepass")), name) for name in names)
    return {name for _, name in hashed[: max(1, len(hashed) // 10)]}


def _notices(folder, named_by_folder, passed_over):
    """The lines that say where captions come from, if from folders, and what is passed over and why."""
    notices = []
    examples, by_reason = {}, {}
    for entry in named_by_folder:
        if entry.caption:
            examples.setdefault(entry.caption, entry.path.relative_to(folder))
    if examples:
        told = ", ".join(f"{caption!r} for {path}" for caption, path in list(examples.items())[:EXAMPLES])
        notices.append(f"captions come from the names of folders: {told}")
    for path, reason in passed_over:
        by_reason.setdefault(reason, []).append(str(path))
    for reason, paths in by_reason.items():
        more = ", ..." if len(paths) > EXAMPLES else ""
        notices.append(f"{len(paths):,} passed over ({reason}): {', '.join(paths[:EXAMPLES])}{more}")
    return notices


def _decode(entry, out):
    """Read an entry's picture into `out` (size, size, 3) -> None, or the reason why that cannot be."""
    if entry.caption is None:
        return f"it has no caption in {entry.origin}"
    try:
        out[:] = read_picture(entry.path, len(out))
    except FileNotFoundError:
        return f"no such file, in {entry.origin}"
    except UnidentifiedImageError:
        return "not a picture of a known format"
    except Exception as error:  # a decoder raises whatever it stumbles over in a broken file
        return " ".join(str(error).split()) or type(error).__name__
