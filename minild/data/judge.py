"""Does a picture show what its caption says? Judged by rendering every caption and comparing.

For each of all the captions there are, the best-fitting rendering over place and size is the one with the least squared
error to the picture; the picture is taken to show the caption whose best rendering is nearest. Rendering them one by
one would take 12 thousand captions times a million places each. But the error falls apart:

    |picture - rendering|^2 = |picture - background|^2 - gain(first object) - gain(second object),

because the objects do not overlap. With r = picture - background, d = colour - background and m an object's cover,

    gain = sum |r|^2 - |r - m d|^2 = 2 d . sum(m r) - |d|^2 sum(m^2),

and sum(m r) = sum(m picture) - background sum(m). So one correlation of the picture with each sprite (a matrix product)
gives the gain of every object, colour, background, size and place. The best places of a *pair* must keep to the scenes'
rules (apart along the relation, in line across it); pairs are looked at in the order of the sum of their best single
gains, which is an upper bound, until no other can win. The search is exact.
"""

import functools

import numpy as np

from minild.data.relations import RELATIONS
from minild.data.shapes import BACKGROUNDS, BASE, COLOURS, GAP, SHAPES, SHIFT, SIZES, SUB, parse, sprite

ATTRIBUTES = ("background", "shapes", "colours", "relation", "all")
SIZE = BASE  # the height and width of the pictures it reads
_N = SUB * BASE  # quarter pixels across a picture
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
        self.parts = []
        best = []
        for size, sums in correlations.items():
            _, m, mm = _sprites(size)
            count = BASE - size
            residual = sums - b[:, None, None, None] * _spread(m, count)
            norm = _spread(mm, count)
            self.parts.append((size, residual, norm))
            gains = (2 * self.contrast @ residual.reshape(3, -1)).reshape(-1, *norm.shape)  # colour,shape,tops,lefts
            gains -= (self.contrast**2).sum(1)[:, None, None, None] * norm
            best.append(gains.max(axis=(2, 3)))
        self.best = np.max(best, axis=0).T.ravel()  # an object's index: shape * colours + colour
        self.tables = {}

    def table(self, index, relation, role):
        """The object's best gain by edge and line, (_N + 1, _N + 1).

        As the first object: [e, l] is the best with its far edge at e or before, centred within SHIFT of l;
        as the second: [e, l] is the best with its near edge at e or after, centred at l.
        """
        if (index, relation, role) in self.tables:
            return self.tables[index, relation, role]
        shape, colour = divmod(index, len(COLOURS))
        table = np.full((_N + 1, _N + 1), _NEVER, np.float32)
        for size, residual, norm in self.parts:
            d = self.contrast[colour]
            gain = 2 * np.tensordot(d, residual[:, shape], 1) - (d @ d) * norm[shape]  # tops,lefts
            gain = gain if relation == "above" else gain.T
            side = SUB * size
            edge, line = (side if role == 0 else 0), side // 2
            window = table[edge : edge + gain.shape[0], line : line + gain.shape[1]]
            np.maximum(window, gain, out=window)
        if role == 0:
            table = _widen(np.maximum.accumulate(table, axis=0), SUB * SHIFT)
        else:
            table = np.maximum.accumulate(table[::-1], axis=0)[::-1]
        self.tables[index, relation, role] = table
        return table

    def pair(self, first, second, relation):
        """The best gain of two objects together, over all places and sizes that the relation allows."""
        gap = SUB * GAP
        return float((self.table(first, relation, 0)[:-gap] + self.table(second, relation, 1)[gap:]).max())


def _widen(table, reach):
    """The maximum over the columns within reach of each: a sliding maximum by doubling."""
    padded = np.pad(table, ((0, 0), (reach, reach)), constant_values=_NEVER)
    width, have = 2 * reach + 1, 1
    while have < width:
        step = min(have, width - have)
        padded = np.maximum(padded[:, : padded.shape[1] - step], padded[:, step:])
        have += step
    return padded


def read(picture):
    """The scene a picture shows: the key (first, second, relation, background) whose best rendering is nearest.

    picture: (32, 32, 3) float in [0, 1], or uint8.
    """
    picture = np.asarray(picture)
    if picture.shape != (BASE, BASE, 3):
        raise ValueError(f"picture: expected shape ({BASE}, {BASE}, 3), got {picture.shape}")
    picture = picture.astype(np.float32) / (255 if picture.dtype == np.uint8 else 1)
    correlations = {size: _correlate(picture, size) for size in SIZES}
    fits = [_Fit(picture, correlations, background) for background in BACKGROUNDS]

    # The least error a pair could have, were each object free of the other; the nearest first.
    bounds = np.stack([fit.error - fit.best[:, None] - fit.best[None, :] for fit in fits])
    count = len(SHAPES) * len(COLOURS)
    bounds[:, np.arange(count), np.arange(count)] = np.inf
    least, key = np.inf, None
    for flat in np.argsort(bounds, axis=None):
        f, first, second = np.unravel_index(flat, bounds.shape)
        if bounds[f, first, second] >= least:
            break
        for relation in RELATIONS:
            error = fits[f].error - fits[f].pair(first, second, relation)
            if error < least:
                least, key = error, (_object(first), _object(second), relation, fits[f].background)
    return key


def _object(index):
    shape, colour = divmod(int(index), len(COLOURS))
    return SHAPES[shape], tuple(COLOURS)[colour]


def judge(picture, caption):
    """Whether a picture follows a caption, attribute by attribute -> {attribute: bool}.

    background, shapes and colours: the right ones, wherever they are. relation: the right axis, and the objects not the
    wrong way round. all: picture and caption show the same scene. Either true caption of a picture is right.
    """
    return compare(read(picture), parse(caption))


def compare(shown, asked):
    """The attributes on which two scene keys agree -> {attribute: bool}."""
    shapes, colours = (sorted(o[k] for o in shown[:2]) == sorted(o[k] for o in asked[:2]) for k in (0, 1))
    alike = [sum(x == y for s, a in zip(order, asked[:2]) for x, y in zip(s, a)) for order in (shown[:2], shown[1::-1])]
    return {
        "background": shown[3] == asked[3],
        "shapes": shapes,
        "colours": colours,
        "relation": shown[2] == asked[2] and alike[0] >= alike[1],
        "all": shown == asked,
    }


def report(pictures, captions, withheld=None):
    """The share of pictures that follow their captions, by attribute (see shares).

    pictures (N, 32, 32, 3); captions N strings.
    """
    return shares([judge(picture, caption) for picture, caption in zip(pictures, captions, strict=True)], withheld)


def shares(verdicts, withheld=None):
    """N verdicts, {attribute: bool} each -> {attribute: share in [0, 1]}.

    withheld, N booleans, adds "withheld": the share of those that are followed fully.
    """
    found = {name: float(np.mean([v[name] for v in verdicts])) for name in verdicts[0]}
    if withheld is not None and any(withheld):
        found["withheld"] = float(np.mean([v["all"] for v, w in zip(verdicts, withheld, strict=True) if w]))
    return found
