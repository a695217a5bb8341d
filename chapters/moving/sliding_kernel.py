"""A kernel slides over a picture, as in figure 3.1: the numbers under it, the products, their sum, and the output."""

import numpy as np

from minild import data
from minild.ops import conv2d
from moving.frame import Page, as_bytes, tiled

SIDE, WHITE = 16, 9  # pixels of the picture; their numbers are whole, from 0, black, to 9
KERNELS = [  # name, weights, what the sum is divided by, what it finds
    ("edges from left to right", [[1, 0, -1], [2, 0, -2], [1, 0, -1]], 1,
     "The left side of the window minus its right side: 0 where both are alike, positive (purple) where the picture "
     "gets darker to the right, negative (orange) where it gets brighter."),
    ("edges from top to bottom", [[1, 2, 1], [0, 0, 0], [-1, -2, -1]], 1,
     "The upper side of the window minus its lower side: 0 where both are alike, positive (purple) where the picture "
     "gets darker downwards, negative (orange) where it gets brighter."),
    ("differences from the neighbours", [[0, -1, 0], [-1, 4, -1], [0, -1, 0]], 1,
     "Four times the pixel in the middle minus its four neighbours: positive (purple) where it is brighter than they "
     "are, negative (orange) where it is darker."),
    ("blur", [[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9,
     "The mean of the nine pixels: their sum, divided by 9. What is small and sharp disappears."),
]  # fmt: skip
PURPLE, ORANGE = (84, 39, 136), (179, 88, 6)  # of the largest and the least sum; 0 is white


def lion():
    """A lion in grey, (SIDE, SIDE) whole numbers from 0 to WHITE."""
    (picture,) = (picture for picture, name in data.load("emoji") if name == "lion")
    step = len(picture) // SIDE
    grey = picture.mean(axis=2).reshape(SIDE, step, SIDE, step).mean(axis=(1, 3))
    return np.rint(grey / 255 * WHITE).astype(int)


def output(picture, weights, divisor):
    """What the library's convolution gives, (SIDE - 2, SIDE - 2)."""
    weight = np.array(weights, float)[:, :, None, None] / divisor
    return conv2d(picture[None, :, :, None].astype(float), weight)[0][0, :, :, 0]


def coloured(values, signed, largest):
    """A map (H, W) -> (H, W, 3) uint8: white is 0, or, without signs, grey from 0, black, to `largest`."""
    share = (values / largest)[:, :, None]
    if not signed:
        return as_bytes(np.repeat(share, 3, axis=2))
    ends = np.where(share < 0, ORANGE, PURPLE)
    return as_bytes(255 + abs(share) * (ends - 255.0), high=255)


def page():
    picture = lion()
    kernels, maps = [], []
    for name, weights, divisor, finds in KERNELS:
        values, signed = output(picture, weights, divisor), divisor == 1
        largest = float(abs(values).max()) if signed else WHITE
        kernels.append({"name": name, "weights": weights, "divisor": divisor, "finds": finds, "largest": largest})
        maps.append(np.pad(coloured(values, signed, largest), ((1, 1), (1, 1), (0, 0)), constant_values=255))
    grey = coloured(picture, False, WHITE)
    return Page(
        title="A kernel slides over a picture",
        figure="3.1",
        about="A small window, the kernel, lies on the picture. Each number under it is multiplied with the weight at "
        "that place. The nine products are added up, and the sum is one number of the output.",
        still=tiled([grey, *maps], 3),
        alt="A lion in grey, 16 by 16 pixels, and what four kernels make of it. Two find its upright and its level "
        "outlines, the third finds outlines and points, and the fourth makes it soft.",
        caption=f"A lion, and the outputs of four kernels, in this order: {'; '.join(name for name, *_ in KERNELS)}. "
        "Purple is positive, orange negative, white 0.",
        data={"picture": picture.tolist(), "white": WHITE, "kernels": kernels, "purple": PURPLE, "orange": ORANGE},
    )
