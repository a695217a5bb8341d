"""Does a picture show the scene that its caption says? Judged as in judge.py: by the nearest rendering.

First the ground: the one that most of the picture is nearest to, by the median over the pixels of the squared error.
Then both emoji at once. Over a ground b, an emoji of colours times opacity c and opacity m is drawn as c + (1 - m) b;
with r = picture - b and d = c - m b, its

    gain = |r|² - |r - d|² = 2 sum(picture d) - sum(d (d + 2 b)),  sum(picture d) = sum(picture c) - sum(picture b m).

b is the same all along a row. So these are correlations of the picture with c and of picture · b with m, a matrix
product for all names and places, and a term that does not depend on the picture. As emoji do not overlap, the
error of a whole rendering is |r|² less both gains, so the nearest rendering is the pair of the largest sum, among the
pairs of two names of which one ends before the other begins. The search is exact.
"""

import functools

import numpy as np

from minild.data.grounds import GROUNDS, mean_ground
from minild.data.judge import shares
from minild.data.relations import RELATIONS
from minild.data.scenes import BASE, NAMES, SIZES, emoji_at, parse

SIZE = BASE  # the height and width of the pictures it reads
_NEVER = -1e9
_STEP = 2  # pixels between the places that are tried: a drawn emoji may stand off the grid


@functools.cache
def _sprites(size, names):
    """Emoji of a size -> colours times opacity (3 size², names), opacity (size², names), as matrices."""
    sprites = np.stack([emoji_at(name, size) for name in names], axis=-1)
    return sprites[..., :3, :].reshape(-1, len(names)), np.ascontiguousarray(sprites[..., 3, :]).reshape(-1, len(names))


def _windows(picture, size):
    """Every window of a picture (64, 64, C), _STEP pixels apart -> (tops, lefts, size² C)."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, (size, size), axis=(0, 1))[::_STEP, ::_STEP]
    tops, lefts = windows.shape[:2]
    return windows.transpose(0, 1, 3, 4, 2).reshape(tops, lefts, -1)


@functools.cache
def _ground_terms(ground, size, names):
    """sum(d (d + 2 b)), what the gains hold of the ground alone -> (tops, 1, names): it changes by rows only."""
    b = np.broadcast_to(mean_ground(ground, BASE) / 255, (BASE, size, 3))
    colours, opacity = _sprites(size, names)
    c, m = colours.reshape(size, size, 3, -1), opacity.reshape(size, size, 1, -1)
    terms = []
    for top in range(0, BASE - size + 1, _STEP):
        under = b[top : top + size, :, :, None]
        d = c - m * under
        terms.append((d * (d + 2 * under)).sum(axis=(0, 1, 2)))
    return np.stack(terms)[:, None]


def _gains(picture, ground, size, names=NAMES):
    """The gain of every emoji of a size at every place -> (tops, lefts, names)."""
    colours, opacity = _sprites(size, names)
    b = mean_ground(ground, BASE) / 255
    with_colours = _windows(picture, size) @ colours
    with_opacity = _windows((picture * b).sum(axis=2, keepdims=True), size) @ opacity  # sum(m picture b)
    return 2 * (with_colours - with_opacity) - _ground_terms(ground, size, names)


def read_ground(picture):
    """The ground that most of a picture (64, 64, 3), float in [0, 1], is nearest to."""
    errors = {name: np.median(((picture - mean_ground(name, BASE) / 255) ** 2).sum(axis=2)) for name in GROUNDS}
    return min(errors, key=errors.get)


def read(picture, names=NAMES):
    """The scene a picture shows: the key (first, second, relation, ground) whose best rendering is nearest.

    picture: (64, 64, 3) float in [0, 1], or uint8. names: a tuple of those that it may show.
    """
    picture = np.asarray(picture)
    if picture.shape != (SIZE, SIZE, 3):
        raise ValueError(f"picture: expected shape ({SIZE}, {SIZE}, 3), got {picture.shape}")
    picture = picture.astype(np.float32) / (255 if picture.dtype == np.uint8 else 1)
    ground = read_ground(picture)
    gains = {size: _gains(picture, ground, size, names) for size in SIZES}
    best, key = -np.inf, None
    for relation in RELATIONS:
        gain, first, second = _best_pair(gains, axis=RELATIONS.index(relation))
        if gain > best:
            best, key = gain, (names[first], names[second], relation, ground)
    return key


def _best_pair(gains, axis):
    """The largest gain of two emoji of which one ends, along the axis, where the other has not begun.

    -> the gain, the index of the first and of the second.
    """
    shape = BASE + 1, next(iter(gains.values())).shape[-1]
    ending = np.full(shape, _NEVER, np.float32)  # [e]: the best that ends at e or before
    beginning = np.full(shape, _NEVER, np.float32)  # [e]: the best that begins at e or after
    for size, gain in gains.items():
        along = gain.max(axis=1 - axis)  # (places along the axis, names)
        starts = _STEP * np.arange(len(along))
        ending[starts + size] = np.maximum(ending[starts + size], along)
        beginning[starts] = np.maximum(beginning[starts], along)
    ending = np.maximum.accumulate(ending)
    beginning = np.maximum.accumulate(beginning[::-1])[::-1]
    # The best of each side, or where that is one and the same name the second best of one of them.
    best = (_NEVER, 0, 1)
    for e in range(BASE + 1):
        firsts, seconds = (np.argpartition(side[e], -2)[-2:] for side in (ending, beginning))
        for first in firsts:
            for second in seconds:
                total = float(ending[e, first] + beginning[e, second])
                if first != second and total > best[0]:
                    best = (total, int(first), int(second))
    return best


def judge(picture, caption, names=NAMES):
    """Whether a picture follows a caption, attribute by attribute -> {attribute: bool}.

    background: the ground. objects: both emoji, wherever they are. relation: the right axis, and no emoji in the other
    one's place. all: picture and caption show the same scene. Either true caption of a picture is right.
    """
    return compare(read(picture), parse(caption))


def compare(shown, asked):
    """The attributes on which two scene keys agree -> {attribute: bool}."""
    swapped = sum(a == b for a, b in zip(shown[1::-1], asked))
    return {
        "background": shown[3] == asked[3],
        "objects": set(shown[:2]) == set(asked[:2]),
        "relation": shown[2] == asked[2] and sum(a == b for a, b in zip(shown[:2], asked)) >= swapped,
        "all": shown == asked,
    }


def report(pictures, captions, withheld=None):
    """The share of pictures that follow their captions, by attribute (see judge.shares).

    pictures (N, 64, 64, 3); captions N strings.
    """
    return shares([judge(picture, caption) for picture, caption in zip(pictures, captions, strict=True)], withheld)
