"""Pictures with a class each, from which a classifier learns features: the emoji's subgroups and what shapes hold."""

import numpy as np

from minild.data.emoji import Emoji
from minild.data.shapes import Shapes

SCENES = 700  # of shapes, about as many pictures a class as the larger subgroups have


def load_classes(size=64):
    """-> pictures (N, size, size, 3) uint8, labels (N,) int64, the names of the classes.

    A class is a subgroup of the emoji ("animal-bird"), or the two shapes of a scene, whatever their order and colours
    ("circle and star"). UserError for a size that the emoji or the shapes cannot have: 32 and 64 are what both can.
    """
    emoji, shapes = Emoji(size=size), Shapes(size=size, length=SCENES)
    kinds = [emoji.subgroup(i) for i in range(len(emoji))]
    kinds += [shapes.class_name(i) for i in range(len(shapes))]
    names = sorted(set(kinds))
    pictures = np.concatenate([emoji.pictures, shapes.draw(range(len(shapes)))[0]])
    return pictures, np.array([names.index(kind) for kind in kinds]), names


def class_names(dataset, rows):
    """The class of each of these pictures: the data set's own, or the caption, which may be a folder's name."""
    if hasattr(dataset, "class_name"):
        return [dataset.class_name(i) for i in rows]
    return [dataset.captions(i)[0] for i in rows]


def distort(pictures, rng):
    """Pictures (N, H, W, 3) uint8 -> the same in other crops, mirrored, in other colours and with noise.

    Float32 in [-1, 1]. Crops are of 60 to 100 % of the side, read between pixels (bilinear); each channel gets its own
    gain, 0.6 to 1.4, and offset; half of the pictures get noise of up to 0.2.
    """
    N, H, W, _ = pictures.shape
    scale = rng.uniform(0.6, 1, (N, 1))
    rows = (np.arange(H) * scale + rng.uniform(0, 1, (N, 1)) * (1 - scale) * (H - 1)).clip(0, H - 1)
    columns = (np.arange(W) * scale + rng.uniform(0, 1, (N, 1)) * (1 - scale) * (W - 1)).clip(0, W - 1)
    mirrored = rng.random(N) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    x = _between(_between(pictures.astype(np.float32) / 127.5 - 1, rows, 1), columns, 2)
    gain = rng.uniform(0.6, 1.4, (N, 1, 1, 3)) * rng.choice([1, 1, 1, -1], (N, 1, 1, 1))  # a quarter are negatives
    noise = rng.uniform(0, 0.2, (N, 1, 1, 1)) * (rng.random((N, 1, 1, 1)) < 0.5)
    x = x * gain + rng.uniform(-0.3, 0.3, (N, 1, 1, 3)) + noise * rng.standard_normal(x.shape)
    return x.clip(-1, 1).astype(np.float32)


def _between(x, places, axis):
    """x read at fractional `places` (N, L) along an axis, 1 or 2, by linear interpolation."""
    low = np.minimum(places.astype(int), x.shape[axis] - 2)
    shape = (len(x), -1, 1, 1) if axis == 1 else (len(x), 1, -1, 1)
    share = (places - low).reshape(shape).astype(np.float32)
    first, second = (np.take_along_axis(x, (low + i).reshape(shape), axis) for i in (0, 1))
    return first + share * (second - first)
