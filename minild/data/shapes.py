"""Shapes: captioned pictures of two coloured objects, drawn on the fly.

"a red circle above a blue square on a white background": the caption says all there is to see, so that a drawn picture
can be judged by machine (judge.py). Everything is placed on a grid of quarter pixels, which is also the resolution the
objects are drawn at (four times the picture's, then area-averaged), so each sprite is drawn once and kept.
"""

import functools
import math
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from minild.errors import UserError

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (220, 30, 40),
    "orange": (245, 125, 15),
    "yellow": (255, 230, 40),
    "green": (30, 160, 60),
    "cyan": (60, 210, 230),
    "blue": (30, 70, 220),
    "purple": (130, 40, 170),
    "pink": (255, 105, 190),
}
BACKGROUNDS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}
RELATIONS = ("above", "left of")  # the canonical two; each scene has a second caption with the inverse
INVERSE = {"above": "below", "left of": "right of"}

# These (shape, colour) pairs are never drawn in training, though each of their shapes and colours is.
WITHHELD = (("circle", "purple"), ("square", "green"), ("triangle", "cyan"), ("star", "orange"))

BASE = 32  # the picture's width that places and sizes are measured in
SIZES = (10, 11, 12, 13)  # an object's width and height, in pixels of a 32 x 32 picture
SUB = 4  # places are multiples of 1/SUB pixel
MARGIN, GAP, SHIFT = 1, 1, 4  # least distance to the edge, between objects, and the most they are out of line (pixels)

PAIRS = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)
SEEN = tuple(pair for pair in PAIRS if pair not in WITHHELD)


@dataclass(frozen=True)
class Scene:
    """Two objects; the first is above, or left of, the second.

    objects    ((shape, colour), (shape, colour)), which differ
    relation   "above" or "left of"
    background a key of BACKGROUNDS
    sizes      (int, int), of SIZES
    places     ((top, left), (top, left)), in quarter pixels of a 32 x 32 picture
    """

    objects: tuple
    relation: str
    background: str
    sizes: tuple = (12, 12)
    places: tuple = ((12, 40), (68, 40))

    @property
    def key(self):
        """What a caption can say of the scene: (first, second, relation, background)."""
        return (*self.objects, self.relation, self.background)


def captions(scene):
    """The two true captions of a scene or of a scene's key: (A above B, B below A); the canonical one first."""
    first, second, relation, background = scene.key if isinstance(scene, Scene) else scene
    return _caption(first, relation, second, background), _caption(second, INVERSE[relation], first, background)


def _caption(first, relation, second, background):
    (shape_a, colour_a), (shape_b, colour_b) = first, second
    return f"{_a(colour_a)} {shape_a} {relation} {_a(colour_b)} {shape_b} on a {background} background"


def _a(word):
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


@functools.cache
def _meanings():
    """Every caption there is -> the key of the scenes it is true of."""
    keys = [(a, b, rel, bg) for a in PAIRS for b in PAIRS if a != b for rel in RELATIONS for bg in BACKGROUNDS]
    return {caption: key for key in keys for caption in captions(key)}


def parse(caption):
    """The key (first, second, relation, background) of a caption; its two true captions have the same one."""
    key = _meanings().get(" ".join(caption.lower().split()))
    if key is None:
        example = captions((SEEN[0], SEEN[-1], "above", "white"))[0]
        raise UserError(f"not a caption of shapes: {caption!r} (try {example!r})")
    return key


def held_out(key):
    """Whether scenes of this key are kept for the test split: a tenth of them, by a hash that never changes."""
    return zlib.crc32(captions(key)[0].encode()) % 10 == 0


@functools.cache
def sprite(shape, size, oy, ox):
    """The part of each pixel that the object covers, drawn at four times the size and area-averaged.

    size: width and height in pixels; oy, ox: its top left corner, in quarter pixels, 0..3. -> (size+1, size+1) float32.
    """
    side = size * SUB
    canvas = Image.new("L", (side + SUB, side + SUB))
    draw = ImageDraw.Draw(canvas)
    if shape == "circle":
        draw.ellipse((ox, oy, ox + side - 1, oy + side - 1), fill=1)
    elif shape == "square":
        draw.rectangle((ox, oy, ox + side - 1, oy + side - 1), fill=1)
    else:
        corners = [(0.5, 0), (1, 1), (0, 1)] if shape == "triangle" else _star()
        draw.polygon([(ox + x * (side - 1), oy + y * (side - 1)) for x, y in corners], fill=1)
    mask = np.asarray(canvas, np.float32).reshape(size + 1, SUB, size + 1, SUB).mean(axis=(1, 3))
    mask.flags.writeable = False
    return mask


def _star():
    """The ten corners of a five-pointed star that fills the unit square."""
    turns = [math.pi * k / 5 for k in range(10)]
    corners = np.array([(r * math.sin(a), -r * math.cos(a)) for a, r in zip(turns, (1, 0.45) * 5)])
    corners -= corners.min(0)
    return [tuple(corner) for corner in corners / corners.max(0)]


def render(scene, size=BASE):
    """Draw a scene -> (size, size, 3) uint8. size is a multiple of 32."""
    scale = size // BASE
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    for (shape, colour), width, (top, left) in zip(scene.objects, scene.sizes, scene.places):
        (y, oy), (x, ox) = divmod(top * scale, SUB), divmod(left * scale, SUB)
        cover = sprite(shape, width * scale, oy, ox)[:, :, None]
        window = picture[y : y + len(cover), x : x + len(cover)]
        window += cover * (np.array(COLOURS[colour], np.float32) - window)
    return (picture + 0.5).astype(np.uint8)


class Shapes:
    """The data set: len(d), d[i] -> ((size, size, 3) uint8 picture, caption), the same for the same (split, seed, i).

    train: neither withheld pairs nor held-out scenes; test: only held-out scenes, and every fourth has a withheld pair.
    d[i] gives either true caption at even odds; a trainer that wants another mixture asks captions(i).
    """

    name = "shapes"

    def __init__(self, split="train", size=BASE, seed=0, length=None):
        if split not in ("train", "test"):
            raise UserError(f"split is 'train' or 'test', not {split!r}")
        if size < BASE or size % BASE:
            raise UserError(f"shapes are drawn at a multiple of {BASE} pixels, not {size}")
        self.split, self.size, self.seed = split, size, seed
        self.length = length if length is not None else {"train": 50_000, "test": 512}[split]

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return render(self.scene(i), self.size), self.caption(i)

    def scene(self, i):
        """The i-th Scene, before it is drawn."""
        if not -self.length <= i < self.length:
            raise IndexError(f"scene {i} of {self.length}")
        i = int(i) % self.length
        rng = np.random.default_rng((self.seed, i, self.split == "test"))
        while True:
            u = rng.random(12)
            first, second = _pick(SEEN, u[0]), _pick(SEEN, u[1])
            if self.split == "test" and i % 4 == 3:
                first, second = _pick(WITHHELD, u[0]), _pick(PAIRS, u[1])
                if u[11] < 0.5:
                    first, second = second, first
            relation, background = _pick(RELATIONS, u[2]), _pick(tuple(BACKGROUNDS), u[3])
            if first != second and held_out((first, second, relation, background)) == (self.split == "test"):
                sizes = _pick(SIZES, u[4]), _pick(SIZES, u[5])
                return Scene((first, second), relation, background, sizes, _places(relation, sizes, u[6:11]))

    def captions(self, i):
        """The two true captions of picture i: (canonical, other); canonical says "above" or "left of"."""
        return captions(self.scene(i))

    def caption(self, i):
        """The caption d[i] comes with: one of captions(i), at even odds."""
        return self.captions(i)[zlib.crc32(f"{self.split} {self.seed} {int(i) % self.length}".encode()) & 1]

    def withheld(self, i):
        """Whether picture i shows a (shape, colour) pair that training never does."""
        return any(pair in WITHHELD for pair in self.scene(i).objects)

    def draw(self, indices):
        """Many pictures at once -> (N, size, size, 3) uint8, and the list of their (canonical, other) captions."""
        scenes = [self.scene(i) for i in indices]
        pictures = np.stack([render(scene, self.size) for scene in scenes])
        return pictures, [captions(scene) for scene in scenes]


def _pick(choices, u):
    return choices[int(u * len(choices))]


def _places(relation, sizes, u):
    """Place two objects of the given sizes by five numbers in [0, 1) -> ((top, left), (top, left)), quarter pixels.

    Along the relation: whatever is left of the picture is shared out before, between and after them. Across it: a
    common line, off which each strays by at most SHIFT / 2.
    """
    a, b = (SUB * s for s in sizes)
    free = SUB * (BASE - 2 * MARGIN - GAP) - a - b
    before = int(u[0] * (free + 1))
    between = int(u[1] * (free - before + 1))
    start_a = SUB * MARGIN + before
    start_b = start_a + a + SUB * GAP + between
    stray = SUB * SHIFT // 2
    edge = SUB * MARGIN + stray + SUB * max(SIZES) // 2
    line = edge + int(u[2] * (SUB * BASE - 2 * edge + 1))
    across_a, across_b = (line + int(v * (2 * stray + 1)) - stray - s // 2 for v, s in zip(u[3:], (a, b)))
    place_a, place_b = (start_a, across_a), (start_b, across_b)
    return (place_a, place_b) if relation == "above" else (place_a[::-1], place_b[::-1])
