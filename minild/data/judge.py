"""Does a picture show what its caption says? Judged by rendering every caption and comparing, and then by the outlines.

For each of all the captions there are, the best-fitting rendering over place and size is the one with the least squared
error to the picture; the picture is taken to show the caption whose best rendering is nearest. But one of them is
always nearest: a diamond is nearest to a circle. So what shapes the two objects are, if they are any, is told by their
outlines, which silhouettes.py compares; background, colours, relation and about where the objects are is the nearest
rendering's word.

Rendering them all one by one would take 12 thousand captions times a million places each. But the error falls apart:

    |picture - rendering|^2 = |picture - background|^2 - gain(first object) - gain(second object),

because the objects do not overlap. With r = picture - background, d = colour - background and m an object's cover,

    gain = sum |r|^2 - |r - m d|^2 = 2 d . sum(m r) - |d|^2 sum(m^2),

and sum(m r) = sum(m picture) - background sum(m). So one correlation of the picture with each sprite (a matrix product)
gives the gain of every object, colour, background, size and place. The best places of a *pair* must keep to the scenes'
rules (apart along the relation, in line across it); pairs are looked at in the order of the sum of their best single
gains, which is an upper bound, until no other can win. The search is exact.
"""

import functools
from typing import NamedTuple

import numpy as np

from minild.data.relations import RELATIONS
from minild.data.shapes import (
    BACKGROUNDS,
    BASE,
    COLOURS,
    GAP,
    MARGIN,
    SHAPES,
    SHIFT,
    SIZES,
    SUB,
    Scene,
    parse,
    render,
    sprite,
)
from minild.data.silhouettes import shapes_of

ATTRIBUTES = ("background", "shapes", "colours", "relation", "all")
MEANS = ("outline",)  # what `report` has beside shares of the pictures
SIZE = BASE  # the height and width of the pictures it reads
_N = SUB * BASE  # quarter pixels across a picture
_EDGE = SUB * MARGIN  # where the first object may begin, along the relation, in quarter pixels
_LINE = _EDGE + SUB * max(SIZES) // 2  # and the middle of either, across it: relations.place
_NEVER = -1e9


@functools.cache
def _sprites(size):
    """All sprites of a size, as one matrix: ((size+1)^2, shapes * SUB * SUB), and the sums of m and m^2 of each."""
    masks = [sprite(shape, size, oy, ox).ravel() for shape in SHAPES for oy in range(SUB) for ox in range(SUB)]
    masks = np.stack(masks, axis=1)
    return masks, masks.sum(0), (masks**2).sum(0)


def _correlate(picture, size):
    """sum(m picture) for every sprite and place -> (3, shapes, tops, lefts); tops and lefts are quarter pixels."""
    masks, _, _ = _sprites(size)
    patches = np.lib.stride_tricks.sliding_window_view(picture, (size + 1, size + 1), axis=(0, 1))  # Y,X,3,s,s
    Y, X = patches.shape[:2]
    sums = patches.transpose(2, 0, 1, 3, 4).reshape(3 * Y * X, -1) @ masks
    sums = sums.reshape(3, Y, X, len(SHAPES), SUB, SUB).transpose(0, 3, 1, 4, 2, 5)  # 3,shape,Y,oy,X,ox
    return sums.reshape(3, len(SHAPES), Y * SUB, X * SUB)


def _spread(sums, count):
    """One number a (shape, oy, ox) -> (shape, tops, lefts), the layout of _correlate."""
    return np.tile(sums.reshape(len(SHAPES), SUB, SUB), (1, count, count))


class _Fit:
    """The gains of every object in one picture over one background."""

    def __init__(self, picture, correlations, background):
        self.background = background
        b = np.array(BACKGROUNDS[background], np.float32) / 255
        self.error = float(((picture - b) ** 2).sum())
        self.contrast = np.array(list(COLOURS.values()), np.float32) / 255 - b  # colour, 3
        self.gains = {}  # a size: (colours, shapes, tops, lefts)
        for size, sums in correlations.items():
            _, m, mm = _sprites(size)
            count = BASE - size
            residual = sums - b[:, None, None, None] * _spread(m, count)
            norm = _spread(mm, count)
            gains = (2 * self.contrast @ residual.reshape(3, -1)).reshape(-1, *norm.shape)
            gains -= (self.contrast**2).sum(1)[:, None, None, None] * norm
            self.gains[size] = gains
        best = [gains.max(axis=(2, 3)) for gains in self.gains.values()]
        self.best = np.max(best, axis=0).T.ravel()  # an object's index: shape * colours + colour
        self.tables = {}

    def _places(self, index, relation):
        """The object's gain at all places a scene may have: a size, (places along the relation, middles across it)."""
        shape, colour = divmod(index, len(COLOURS))
        for size, gains in self.gains.items():
            gain = gains[colour, shape] if relation == "above" else gains[colour, shape].T
            side = SUB * size
            across = slice(_LINE - side // 2, _N - _LINE - side // 2 + 1)
            yield size, gain[_EDGE : _N - _EDGE - side + 1, across]

    def table(self, index, relation, role):
        """The object's best gain by edge and line, (_N + 1, middles across the relation, of which the first is _LINE).

        As the first object: [e, l] is the best with its far edge at e or before, centred within SHIFT of l;
        as the second: [e, l] is the best with its near edge at e or after, centred at l.
        """
        if (index, relation, role) in self.tables:
            return self.tables[index, relation, role]
        table = np.full((_N + 1, _N - 2 * _LINE + 1), _NEVER, np.float32)
        for size, gain in self._places(index, relation):
            edge = _EDGE + (SUB * size if role == 0 else 0)
            rows = table[edge : edge + len(gain)]
            np.maximum(rows, gain, out=rows)
        if role == 0:
            table = _widen(np.maximum.accumulate(table, axis=0), SUB * SHIFT)
        else:
            table = np.maximum.accumulate(table[::-1], axis=0)[::-1]
        self.tables[index, relation, role] = table
        return table

    def _pairs(self, first, second, relation):
        """The best gain of two objects together where the first ends at e or before, and the second is centred at l."""
        gap = SUB * GAP
        return self.table(first, relation, 0)[:-gap] + self.table(second, relation, 1)[gap:]

    def pair(self, first, second, relation):
        """The best gain of two objects together, over all places and sizes that the relation allows."""
        return float(self._pairs(first, second, relation).max())

    def scene(self, first, second, relation):
        """The Scene whose rendering has that gain."""
        pairs = self._pairs(first, second, relation)
        e, line = np.unravel_index(pairs.argmax(), pairs.shape)
        in_reach = slice(max(0, line - SUB * SHIFT), line + SUB * SHIFT + 1)
        begin = max(0, e + SUB * GAP - _EDGE)
        of_first = self._best_place(first, relation, lambda side: (slice(max(0, e - side - _EDGE + 1)), in_reach))
        of_second = self._best_place(second, relation, lambda side: (slice(begin, None), slice(line, line + 1)))
        sizes, places = zip(of_first, of_second)
        return Scene((_object(first), _object(second)), relation, self.background, sizes, places)

    def _best_place(self, index, relation, where):
        """The object's size and place of the best gain among its _places that where(side) indexes."""
        best, size_of, place_of = _NEVER, None, None
        for size, gain in self._places(index, relation):
            allowed = np.full_like(gain, _NEVER)
            allowed[where(SUB * size)] = gain[where(SUB * size)]
            if allowed.max() > best:
                i, j = (int(k) for k in np.unravel_index(allowed.argmax(), allowed.shape))
                place = _EDGE + i, _LINE - SUB * size // 2 + j
                best, size_of, place_of = allowed.max(), size, place if relation == "above" else place[::-1]
        return size_of, place_of


def _widen(table, reach):
    """The maximum over the columns within reach of each: a sliding maximum by doubling."""
    padded = np.pad(table, ((0, 0), (reach, reach)), constant_values=_NEVER)
    width, have = 2 * reach + 1, 1
    while have < width:
        step = min(have, width - have)
        padded = np.maximum(padded[:, : padded.shape[1] - step], padded[:, step:])
        have += step
    return padded


class Reading(NamedTuple):
    """What a picture shows: the key (first, second, relation, background), and how well both objects' outlines fit.

    The shape of an object that is none of the shapes is None. outline: the IoU of each with its best-fitting true one.
    """

    key: tuple
    outline: tuple


def look(picture):
    """-> the Reading of a picture, (32, 32, 3) float in [0, 1], or uint8."""
    picture = _unit(picture)
    scene = _nearest(picture)
    (first, fits), (second, fits_too) = shapes_of(picture, scene)
    first, second = ((shape, colour) for shape, (_, colour) in zip((first, second), scene.objects))
    return Reading((first, second, scene.relation, scene.background), (fits, fits_too))


def read(picture):
    """The key of what a picture shows (see Reading). picture: (32, 32, 3) float in [0, 1], or uint8."""
    return look(picture).key


def nearest(picture, caption):
    """The true drawing of a caption that is nearest to a picture, over all places and sizes there are, by the squared
    error -> (32, 32, 3) uint8. picture: (32, 32, 3) float in [0, 1], or uint8.
    """
    first, second, relation, background = parse(caption)
    fit = _Fit(picture := _unit(picture), _correlations(picture), background)
    return render(fit.scene(_index(first), _index(second), relation))


def _unit(picture):
    picture = np.asarray(picture)
    if picture.shape != (BASE, BASE, 3):
        raise ValueError(f"picture: expected shape ({BASE}, {BASE}, 3), got {picture.shape}")
    return picture.astype(np.float32) / (255 if picture.dtype == np.uint8 else 1)


def _correlations(picture):
    return {size: _correlate(picture, size) for size in SIZES}


def _nearest(picture):
    """The Scene, of all there are, whose rendering is nearest to a picture (32, 32, 3) in [0, 1]."""
    correlations = _correlations(picture)
    fits = [_Fit(picture, correlations, background) for background in BACKGROUNDS]

    # The least error a pair could have, were each object free of the other; the nearest first.
    bounds = np.stack([fit.error - fit.best[:, None] - fit.best[None, :] for fit in fits])
    count = len(SHAPES) * len(COLOURS)
    bounds[:, np.arange(count), np.arange(count)] = np.inf
    least, found = np.inf, None
    for flat in np.argsort(bounds, axis=None):
        f, first, second = np.unravel_index(flat, bounds.shape)
        if bounds[f, first, second] >= least:
            break
        for relation in RELATIONS:
            error = fits[f].error - fits[f].pair(first, second, relation)
            if error < least:
                least, found = error, (fits[f], first, second, relation)
    fit, *pair = found
    return fit.scene(*pair)


def _object(index):
    shape, colour = divmod(int(index), len(COLOURS))
    return SHAPES[shape], tuple(COLOURS)[colour]


def _index(pair):
    return SHAPES.index(pair[0]) * len(COLOURS) + tuple(COLOURS).index(pair[1])


def judge(picture, caption):
    """Whether a picture follows a caption, attribute by attribute -> {attribute: bool}.

    background and colours: the right ones, wherever they are. shapes: both are what they should be, by their outlines.
    relation: the right axis, and the objects not the wrong way round. all: picture and caption show the same scene.
    Either true caption of a picture is right.
    """
    return compare(read(picture), parse(caption))


def compare(shown, asked):
    """The attributes on which two scene keys agree -> {attribute: bool}."""
    shapes, colours = (sorted(str(o[k]) for o in shown[:2]) == sorted(o[k] for o in asked[:2]) for k in (0, 1))
    alike = [sum(x == y for s, a in zip(order, asked[:2]) for x, y in zip(s, a)) for order in (shown[:2], shown[1::-1])]
    return {
        "background": shown[3] == asked[3],
        "shapes": shapes,
        "colours": colours,
        "relation": shown[2] == asked[2] and alike[0] >= alike[1],
        "all": shown == asked,
    }


def report(pictures, captions, withheld=None):
    """The share of pictures that follow their captions, by attribute (see shares), and "outline", which is a mean: the
    IoU of the objects' outlines with the best-fitting true ones.

    pictures (N, 32, 32, 3); captions N strings.
    """
    readings = [look(picture) for picture in pictures]
    verdicts = [compare(shown.key, parse(caption)) for shown, caption in zip(readings, captions, strict=True)]
    return shares(verdicts, withheld) | {"outline": float(np.mean([shown.outline for shown in readings]))}


def shares(verdicts, withheld=None):
    """N verdicts, {attribute: bool} each -> {attribute: share in [0, 1]}.

    withheld, N booleans, adds "withheld": the share of those that are followed fully.
    """
    found = {name: float(np.mean([v[name] for v in verdicts])) for name in verdicts[0]}
    if withheld is not None and any(withheld):
        found["withheld"] = float(np.mean([v["all"] for v, w in zip(verdicts, withheld, strict=True) if w]))
    return found
