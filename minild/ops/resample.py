"""Nearest-neighbour upsampling by two."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.validate import require_rank


class UpsampleCache(NamedTuple):
    shape: Any


def require_map(x):
    """ValueError unless `x` is a feature map (N, H, W, C)."""
    require_rank("x", x, 4, "(N, H, W, C)")


def upsample_nearest(x):
    """Every pixel becomes a 2 x 2 square: x (N, H, W, C) -> y (N, 2H, 2W, C)."""
    require_map(x)
    N, H, W, C = x.shape
    squares = get_array_module(x).broadcast_to(x[:, :, None, :, None], (N, H, 2, W, 2, C))
    return squares.reshape(N, 2 * H, 2 * W, C), UpsampleCache(x.shape)


def upsample_nearest_backward(dy, cache):
    """dy (N, 2H, 2W, C) -> dx (N, H, W, C): the sum over each square."""
    N, H, W, C = cache.shape
    return dy.reshape(N, H, 2, W, 2, C).sum(axis=(2, 4))
