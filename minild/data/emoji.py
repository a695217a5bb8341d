"""Emoji: the single-codepoint emoji of Unicode, as real pictures with their names.

Built by data/emoji/build.py: sheets of 64 x 64 pictures and a metadata.jsonl with name, group and subgroup of each.
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
            sheets = [_cut(path) for path in sorted(data_path("emoji").glob("sheet-*.png"))]
        except OSError as error:
            raise UserError(f"the emoji set cannot be read ({error}); build it with data/emoji/build.py") from None
        self.entries = [json.loads(line) for line in lines]
        self.names = [entry["text"] for entry in self.entries]
        pictures = np.concatenate(sheets)[: len(self.entries)] if sheets else np.empty((0, SIDE, SIDE, 3), np.uint8)
        if len(pictures) < len(self.entries):
            raise UserError("the emoji set is incomplete: sheets are missing; build it with data/emoji/build.py")
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

    def subgroup(self, i):
        """The i-th emoji's subgroup, such as "animal-bird"."""
        return self.entries[i]["subgroup"]

    def captions(self, i):
        """What the i-th picture may be called -> a tuple of one name."""
        return (self.names[i],)


def _cut(path):
    """A sheet -> its pictures, row by row, (N, SIDE, SIDE, 3) uint8."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    return sheet.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)
