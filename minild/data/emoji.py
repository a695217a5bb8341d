"""Emoji: the single-codepoint emoji of Unicode, as real pictures with their names.

Built by data/emoji/build.py: sheets of 64 x 64 pictures, of how much of each pixel the emoji covers, and a
metadata.jsonl with name, group and subgroup of each.
"""

import json

import numpy as np
from PIL import Image

from minild.data.location import data_path
from minild.errors import UserError

SIDE = 64  # pixels, as stored


class Emoji:
    """The data set: len(d), d[i] -> ((size, size, 3) uint8 picture on white, name).

    A closed vocabulary: both splits are the same set, for the model is asked to draw every name there is, and none that
    it has not been shown. size: 64, or a divisor of it (32 by default), by area-averaging.
    """

    name = "emoji"

    def __init__(self, split="train", size=32):
        if split not in ("train", "test"):
            raise UserError(f"split is 'train' or 'test', not {split!r}")
        if size < 1 or SIDE % size:
            raise UserError(f"emoji are stored at {SIDE} pixels: size must divide that, {size} does not")
        self.split, self.size = split, size
        try:
            lines = data_path("emoji", "metadata.jsonl").read_text(encoding="utf-8").splitlines()
            pictures = read_sheets("sheet", "RGB")
        except OSError as error:
            raise UserError(f"the emoji set cannot be read ({error}); build it with data/emoji/build.py") from None
        self.entries = [json.loads(line) for line in lines]
        self.names = [entry["text"] for entry in self.entries]
        if len(pictures) < len(self.entries):
            raise UserError("the emoji set is incomplete: sheets are missing; build it with data/emoji/build.py")
        pictures = pictures[: len(self.entries)]
        k = SIDE // size
        averaged = pictures.reshape(-1, size, k, size, k, 3).mean(axis=(2, 4), dtype=np.float32)
        self.pictures = (averaged + 0.5).astype(np.uint8)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return self.pictures[i], self.names[i]

    def group(self, i):
        """The i-th emoji's group, such as "Animals & Nature"."""
        return self.entries[i]["group"]

    class_name = group

    def subgroup(self, i):
        """The i-th emoji's subgroup, such as "animal-bird"."""
        return self.entries[i]["subgroup"]

    def captions(self, i):
        """What the i-th picture may be called -> a tuple of one name."""
        return (self.names[i],)


def read_sheets(name, mode):
    """All sheets of a name -> their pictures, row by row, (N, SIDE, SIDE, channels of Pillow's mode) uint8."""
    pictures = [np.empty((0, SIDE, SIDE, len(mode)), np.uint8)]
    for path in sorted(data_path("emoji").glob(f"{name}-*.png")):
        with Image.open(path) as image:
            sheet = np.asarray(image.convert(mode))
        rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
        cut = sheet.reshape(rows, SIDE, columns, SIDE, -1).transpose(0, 2, 1, 3, 4)
        pictures.append(cut.reshape(-1, SIDE, SIDE, len(mode)))
    return np.concatenate(pictures)


def sprites():
    """Every emoji by its name -> {name: (SIDE, SIDE, 4) float32}: colours times opacity, and the opacity, in [0, 1].

    On a ground b it is drawn as colours + (1 - opacity) b.
    """
    on_white, opacity = (read_sheets(*kind).astype(np.float32) / 255 for kind in (("sheet", "RGB"), ("opacity", "L")))
    colours = (on_white - (1 - opacity)).clip(0, 1)
    return dict(zip(Emoji(size=SIDE).names, np.concatenate([colours, opacity], axis=-1)))
