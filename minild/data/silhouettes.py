"""Is what was drawn a circle, a square, a triangle, a star, or none of them? Told by comparing outlines.

An object's cover of each pixel is read off its colour: over a background b, an object of colour b + d and of cover m
is drawn as b + m d, so m = (picture - b) . d / |d|^2. Where m, in straight lines between the middles of pixels, is a
half or more is the object's silhouette, on the grid of quarter pixels that true objects are drawn on. Soft edges and
colours a little off hardly move it. True silhouettes are made the same way, of the data set's own sprites. Of two a, b

    IoU = |a and b| / |a or b|,

which is 1 where their outlines are one. The best-fitting shape over all sizes, and all places nearby, is what was
drawn; where its IoU is below LEAST, nothing of the data set was.

How sure that is (tests/data/test_silhouettes.py measures it): accepted are all of the test split's true drawings, with
noise of 5 % of the range, too, and all on white and black that the autoencoder of the shipped shapes rebuilds. On grey
it smears cyan and purple, which anyone sees: a third of these is refused. Refused are diamonds in the place of circles,
squares whose edges wave by two thirds of a pixel or that are turned by ten degrees, either of these where it is a fifth
too flat, triangles rounded by a fifth of their width, stars of hardly any points. Not told from true ones are shapes
off by less than about a quarter of a pixel all around: a hexagon passes for a circle, as does a circle that only leans
towards a diamond, and a triangle rounded by a tenth.
"""

import functools

import numpy as np

from minild.data.shapes import BACKGROUNDS, BASE, COLOURS, SHAPES, SIZES, SUB, sprite

# Of the IoU. An outline a quarter of a pixel off, all around, costs a star more than a circle: it has more outline.
LEAST = {"circle": 0.9, "square": 0.9, "triangle": 0.86, "star": 0.8}
REACH = 6  # quarter pixels, up and down, left and right, from where the object seems to stand to where it may
_AROUND = 1  # pixels around a sprite that belong to its silhouette's grid, for the straight lines to reach zero


@functools.cache
def _lines(count):
    """(SUB count, count): from numbers at the middles of pixels to the middles of quarter pixels, in straight lines."""
    at = (np.arange(SUB * count) + 0.5) / SUB - 0.5
    weights = 1 - abs(at.clip(0, count - 1)[:, None] - np.arange(count))
    return weights.clip(0).astype(np.float32)


def silhouettes(covers):
    """Covers (..., n, n) in [0, 1] or about that -> (..., 4 n, 4 n) float32, 1 inside and 0 outside."""
    lines = _lines(covers.shape[-1])
    return (lines @ covers @ lines.T >= 0.5).astype(np.float32)


@functools.cache
def _true(size):
    """All true silhouettes of a size, as one matrix, (pixels, shapes * SUB * SUB), and the area of each."""
    sprites = np.stack([sprite(shape, size, oy, ox) for shape in SHAPES for oy in range(SUB) for ox in range(SUB)])
    true = silhouettes(np.pad(sprites, ((0, 0), (_AROUND, _AROUND), (_AROUND, _AROUND))))
    return np.ascontiguousarray(true.reshape(len(true), -1).T), true.sum(axis=(1, 2))


def overlaps(cover, middle):
    """The IoU of the silhouette of a cover (32, 32) with the best-fitting true one of each shape -> {shape: IoU}.

    middle: where the object seems to be, (y, x) in quarter pixels.
    """
    drawn = silhouettes(cover)
    around = SUB * BASE // 4
    padded = np.pad(drawn, around)
    best = np.zeros(len(SHAPES))
    for size in SIZES:
        true, areas = _true(size)
        corners = [[(m + r - SUB * size // 2) // SUB - _AROUND for r in (-REACH, REACH)] for m in middle]  # in pixels
        side = SUB * (size + 1 + 2 * _AROUND)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
        rows, columns = (slice(SUB * a + around, SUB * b + around + 1, SUB) for a, b in corners)
        inside = windows[rows, columns].reshape(-1, side * side) @ true  # places in whole pixels, shapes and quarters
        share = inside / (drawn.sum() + areas - inside)
        best = np.maximum(best, share.reshape(-1, len(SHAPES), SUB * SUB).max(axis=(0, 2)))
    return dict(zip(SHAPES, best.tolist()))


def covers(picture, scene):
    """How much of each pixel the two objects of a scene cover in a picture, (32, 32, 3) in [0, 1] -> (2, 32, 32).

    Where they stand is the scene's word: up to the middle between them, all is the first's, and beyond it the second's.
    """
    b = np.array(BACKGROUNDS[scene.background], np.float32) / 255
    found = np.empty((2, BASE, BASE), np.float32)
    for cover, (_, colour) in zip(found, scene.objects):
        d = np.array(COLOURS[colour], np.float32) / 255 - b
        cover[:] = (picture - b) @ d / (d @ d)
    axis = ("above", "left of").index(scene.relation)
    end, start = scene.places[0][axis] + SUB * scene.sizes[0], scene.places[1][axis]
    middle = (end + start + SUB) // (2 * SUB)  # in whole pixels: no object of a true drawing reaches over it
    first, second = found if axis == 0 else found.transpose(0, 2, 1)
    first[middle:], second[:middle] = 0, 0
    return found


def shapes_of(picture, scene):
    """What the two objects of a picture are, where a scene says about where they are, and in which colours.

    -> ((shape, or None for none of them, IoU of the best-fitting shape), of the second the same).
    """
    found = []
    for cover, size, place in zip(covers(picture, scene), scene.sizes, scene.places):
        by_shape = overlaps(cover, [start + SUB * size // 2 for start in place])
        best = max(by_shape, key=by_shape.get)
        found.append((best if by_shape[best] >= LEAST[best] else None, by_shape[best]))
    return tuple(found)
