"""A folder of the user's own captioned pictures, laid out as the reference's `imagefolder`.

    folder/metadata.jsonl     one line a picture: {"file_name": "a/0001.png", "text": "a cat on a sofa"}
    folder/a_tabby-cat/*.png  or, without it: the caption is the sub-folder's name, "a tabby cat"
    folder/train, folder/test or these two, with either of the above inside
"""

import functools
import json
import zlib
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from minild.errors import UserError

METADATA = "metadata.jsonl"
SPLITS = {"train", "test", "validation", "val", "dev"}  # folders that are no classes, if train is among them
EXTENSIONS = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
ENOUGH = 50  # pictures, from which a tenth is kept for the test


class Entry(NamedTuple):
    path: Path
    caption: str | None
    origin: str  # where the caption comes from, or should


class ImageFolder:
    """The data set: len(d), d[i] -> ((size, size, 3) uint8 picture, caption), in the order of metadata.jsonl or names.

    split: "train" or "test". A folder without train/ and test/ of its own is split here: of 50 pictures or more a fixed
    tenth, chosen by a hash of the file names, is the test and no part of train; of fewer, both splits are all of them.

    A picture of any size and mode is cut to the square in its middle and resized. Decoding begins at once, on threads
    in the background, and whatever needs the pictures waits for them all. They then stay in memory: 10,000 of 32 x 32
    are 30 MB. A picture that cannot be read is left out; d.skipped is the list of (path, reason) of those.

    UserError for a folder that is not there, a broken line of metadata.jsonl or an empty caption; where none of the
    pictures can be read, on first use.
    """

    def __init__(self, folder, split="train", size=32):
        if split not in ("train", "test"):
            raise UserError(f"split is 'train' or 'test', not {split!r}")
        if size < 1:
            raise UserError(f"size must be 1 pixel or more, got {size}")
        self.name, self.split, self.size = str(folder), split, size
        try:
            self._entries = _split_entries(Path(folder), split)
        except OSError as error:
            raise UserError(f"cannot read {error.filename or folder}: {error.strerror or error}") from None
        if not self._entries:
            raise UserError(f"{folder} holds no pictures: add some, and a {METADATA} or a sub-folder for each caption")
        if not any(entry.caption for entry in self._entries):
            raise UserError(f"{folder}: no picture has a caption: add a {METADATA}, or a sub-folder for each caption")
        self._decoded = np.empty((len(self._entries), size, size, 3), np.uint8)
        # Pillow lets go of the interpreter lock while it decodes. The pool's threads end with the work, or the program.
        pool = ThreadPool()
        self._reasons = [pool.apply_async(_decode, pair) for pair in zip(self._entries, self._decoded)]
        pool.close()

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


def _split_entries(folder, split):
    """The entries of one split of a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one with captioned pictures")
    names = {path.name for path in _subfolders(folder)}
    has_splits = "train" in names and names <= SPLITS and not (folder / METADATA).is_file()
    if has_splits and "test" in names:
        return _list_entries(folder / split)
    base = folder / "train" if has_splits else folder
    entries = _list_entries(base)
    if len(entries) < ENOUGH:
        return entries
    names = [entry.path.relative_to(base).as_posix() for entry in entries]
    held_out = _held_out(set(names))
    return [entry for entry, name in zip(entries, names) if (name in held_out) == (split == "test")]


def _held_out(names):
    """A tenth of the names: those with the least hashes, so that the choice is fixed, and never none."""
    hashed = sorted((zlib.crc32(name.encode(errors="surrogatepass")), name) for name in names)
    return {name for _, name in hashed[: max(1, len(hashed) // 10)]}


def _subfolders(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_entries(folder):
    """Every picture below a folder, with its caption; the caption is None where neither line nor sub-folder gives one.

    A file that metadata.jsonl names and that is missing is among them, to be skipped when it is read.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in EXTENSIONS]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if (folder / METADATA).is_file():
        entries = list(_metadata_entries(folder))
        listed = {entry.path for entry in entries}
        return entries + [Entry(path, None, METADATA) for path in files if path not in listed]
    captions = {}
    for parent in dict.fromkeys(path.parent for path in files if path.parent != folder):
        captions[parent] = _caption(parent.name.replace("_", " ").replace("-", " "), f"the folder {parent}")
    return [Entry(path, captions.get(path.parent), "a sub-folder") for path in files]


def _metadata_entries(folder):
    """The entries that metadata.jsonl lists. UserError names the line that is broken."""
    path = folder / METADATA
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _metadata_entry(folder, line, f"{path}, line {number}", number)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it in that encoding") from None


def _metadata_entry(folder, line, place, number):
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f'{place}: expected {{"file_name": ..., "text": ...}}, got {line.strip()[:60]}')
    for field in ("file_name", "text"):
        if field not in fields:
            raise UserError(f"{place} has no {field!r}: add it")
        if not isinstance(fields[field], str):
            raise UserError(f"{place}: {field!r} must be a text, got a {type(fields[field]).__name__}")
    name = Path(fields["file_name"])
    if not name.parts or name.anchor or ".." in name.parts or "\0" in fields["file_name"]:
        raise UserError(f"{place}: file_name {fields['file_name']!r} is not a path within the folder")
    return Entry(folder / name, _caption(fields["text"], place), f"line {number} of {METADATA}")


def _caption(text, place):
    """The text without white space around it. UserError where nothing is left, or what is left is no Unicode."""
    text = text.strip()
    if not text:
        raise UserError(f"{place}: the caption is empty: say what the picture shows")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place}: the caption is not valid text: {text!r}") from None
    return text


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


def read_picture(path, size):
    """The square in the middle of a picture of any size and mode, resized (Lanczos) -> (size, size, 3) uint8.

    Turned as its EXIF orientation says; what is transparent is white; 16 bits are scaled to 8.
    """
    with Image.open(path) as image:
        image.draft(None, (4 * size, 4 * size))  # a large JPEG decodes faster at a half, quarter or eighth
        picture = _to_rgb(ImageOps.exif_transpose(image))
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def _to_rgb(image):
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white is not known")
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion would cut off all above 255
        grey = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.getbands()[-1] in ("A", "a") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
