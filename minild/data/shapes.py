"""Shapes: captioned pictures of two coloured objects, drawn on the fly.

"a red circle above a blue square on a white background": the caption says all there is to see, so that a drawn picture
can be judged by machine (judge.py). Everything is placed on a grid of quarter pixels, which is also the resolution the
objects are drawn at (four times the picture's, then area-averaged), so each sprite is drawn once and kept.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from minild.data.drawn import DrawnScenes, pick
from minild.data.drawn import held_out as is_held_out
from minild.data.relations import INVERSE, RELATIONS, a, place
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
    return f"{a(colour_a)} {shape_a} {relation} {a(colour_b)} {shape_b} on a {background} background"


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
    """Whether scenes of this key are kept for the test split (drawn.held_out)."""
    return is_held_out(captions(key)[0])


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


SEMANTIC = ("background", *SHAPES)


def semantic_map(scene, size=BASE):
    """What covers most of each pixel, by its number in SEMANTIC -> (size, size) uint8. size is a multiple of 32."""
    scale = size // BASE
    shown = np.zeros((size, size), np.uint8)
    for (shape, _), width, (top, left) in zip(scene.objects, scene.sizes, scene.places):
        (y, oy), (x, ox) = divmod(top * scale, SUB), divmod(left * scale, SUB)
        cover = sprite(shape, width * scale, oy, ox)
        shown[y : y + len(cover), x : x + len(cover)][cover > 0.5] = SEMANTIC.index(shape)
    return shown


class Shapes(DrawnScenes):
    """The data set: len(d), d[i] -> ((size, size, 3) uint8 picture, caption), the same for the same (split, seed, i).

    train: neither withheld pairs nor held-out scenes; test: only held-out scenes, and every fourth has a withheld pair.
    d[i] gives either true caption at even odds; a trainer that wants another mixture asks captions(i).
    """

    name, base, lengths = "shapes", BASE, {"train": 50_000, "test": 512}
    semantic_classes = SEMANTIC

    def _scene(self, rng, i):
        while True:
            u = rng.random(12)
            first, second = pick(SEEN, u[0]), pick(SEEN, u[1])
            if self.split == "test" and i % 4 == 3:
                first, second = pick(WITHHELD, u[0]), pick(PAIRS, u[1])
                if u[11] < 0.5:
                    first, second = second, first
            relation, background = pick(RELATIONS, u[2]), pick(tuple(BACKGROUNDS), u[3])
            if first != second and held_out((first, second, relation, background)) == (self.split == "test"):
                sizes = pick(SIZES, u[4]), pick(SIZES, u[5])
                return Scene((first, second), relation, background, sizes, _places(relation, sizes, u[6:11]))

    def _captions(self, scene):
        return captions(scene)

    def _render(self, scene):
        return render(scene, self.size)

    def class_name(self, i):
        """Which two shapes picture i shows, whatever their order: "circle and star"."""
        return " and ".join(sorted(shape for shape, _ in self.scene(i).objects))

    def semantic_map(self, i):
        """What each pixel of picture i shows, by its number in SEMANTIC -> (size, size) uint8."""
        return semantic_map(self.scene(i), self.size)

    def _is_withheld(self, scene):
        return any(pair in WITHHELD for pair in scene.objects)

    @property
    def judge(self):
        """What reads pictures and says whether they follow their captions: minild.data.judge."""
        from minild.data import judge  # which knows this file

        return judge


def _places(relation, sizes, u):
    """Where two objects of these sizes stand, in quarter pixels (relations.place)."""
    widths = [SUB * size for size in sizes]
    return place(relation, widths, SUB * BASE, SUB * MARGIN, SUB * GAP, SUB * SHIFT, SUB * max(SIZES), u)
