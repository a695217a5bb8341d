"""Pooling."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.validate import require_rank


class MaxPoolCache(NamedTuple):
    index: Any  # N,H/2,W/2,C: which of the four, row by row; of equals the first
    shape: tuple  # of x


def require_max_pool(x):
    """ValueError unless `x` is a feature map (N, H, W, C) of at least 2 x 2 pixels."""
    require_rank("x", x, 4, "(N, H, W, C)")
    if min(x.shape[1:3]) < 2:
        raise ValueError(f"x: expected 2 x 2 pixels or more, got shape {x.shape}")


def max_pool2d(x):
    """The largest of each 2 x 2 square, in each channel: x (N, H, W, C) -> y (N, H // 2, W // 2, C).

    An odd last row or column belongs to no square. Raises ValueError for another rank or less than 2 x 2 pixels.
    """
    require_max_pool(x)
    index = _squares(x).argmax(axis=3)[..., None, :]
    y = get_array_module(x).take_along_axis(_squares(x), index, axis=3)
    return y[..., 0, :], MaxPoolCache(index, x.shape)


def max_pool2d_backward(dy, cache):
    """dy (N, H // 2, W // 2, C) -> dx (N, H, W, C): each value goes back to the pixel that it came from."""
    xp = get_array_module(dy)
    N, h, w, C = dy.shape
    four = xp.arange(4).reshape(4, 1)
    squares = dy[..., None, :] * (cache.index == four)  # N,h,w,4,C
    dx = xp.zeros(cache.shape, dy.dtype)
    dx[:, : 2 * h, : 2 * w] = squares.reshape(N, h, w, 2, 2, C).transpose(0, 1, 3, 2, 4, 5).reshape(N, 2 * h, 2 * w, C)
    return dx


def _squares(x):
    """x (N, H, W, C) -> (N, H // 2, W // 2, 4, C), the four pixels of each square row by row."""
    N, H, W, C = x.shape
    h, w = H // 2, W // 2
    whole = x[:, : 2 * h, : 2 * w].reshape(N, h, 2, w, 2, C)
    return whole.transpose(0, 1, 3, 2, 4, 5).reshape(N, h, w, 4, C)
