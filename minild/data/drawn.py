"""DrawnScenes: a data set whose pictures are drawn on the fly from scenes, the same for the same (split, seed, i)."""

import zlib

import numpy as np

from minild.errors import UserError


class DrawnScenes:
    """len(d), d[i] -> ((size, size, 3) uint8 picture, caption). A subclass says what a scene is and how it is drawn:

    name, base, lengths  of the data set; the width it is drawn at, or a multiple; how many pictures a split has
    _scene(rng, i)       the i-th scene, by that generator
    _captions(scene)     its two true captions: (A above B, B below A), the canonical one first
    _render(scene)       -> (size, size, 3) uint8
    _is_withheld(scene)  whether it shows what training never does
    """

    def __init__(self, split="train", size=None, seed=0, length=None):
        size = self.base if size is None else size
        if split not in ("train", "test"):
            raise UserError(f"split is 'train' or 'test', not {split!r}")
        if size < self.base or size % self.base:
            raise UserError(f"{self.name} are drawn at a multiple of {self.base} pixels, not {size}")
        self.split, self.size, self.seed = split, size, seed
        self.length = length if length is not None else self.lengths[split]

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return self._render(self.scene(i)), self.caption(i)

    def scene(self, i):
        """The i-th scene, before it is drawn."""
        if not -self.length <= i < self.length:
            raise IndexError(f"scene {i} of {self.length}")
        i = int(i) % self.length
        return self._scene(np.random.default_rng((self.seed, i, self.split == "test")), i)

    def captions(self, i):
        """The two true captions of picture i: (canonical, other); canonical says "above" or "left of"."""
        return self._captions(self.scene(i))

    def caption(self, i):
        """The caption d[i] comes with: one of captions(i), at even odds."""
        return self.captions(i)[zlib.crc32(f"{self.split} {self.seed} {int(i) % self.length}".encode()) & 1]

    def withheld(self, i):
        """Whether picture i shows what training never does (each data set says what that is)."""
        return self._is_withheld(self.scene(i))

    def draw(self, indices):
        """Many pictures at once -> (N, size, size, 3) uint8, and the list of their (canonical, other) captions."""
        scenes = [self.scene(i) for i in indices]
        return np.stack([self._render(scene) for scene in scenes]), [self._captions(scene) for scene in scenes]


def held_out(caption):
    """Whether scenes of this canonical caption are kept for the test split: a tenth, by a hash that never changes."""
    return zlib.crc32(caption.encode()) % 10 == 0


def pick(choices, u):
    """One of a sequence by a number in [0, 1)."""
    return choices[int(u * len(choices))]
