"""Nearest-neighbour upsampling on all cores."""

from minild.backend import get_array_module
from minild.engine.cores import on_all_cores
from minild.engine.memory import row_pieces
from minild.ops.resample import UpsampleCache


def upsample_nearest(x):
    """`upsample_nearest`, some rows of pixels at a time."""
    N, H, W, C = x.shape
    squares = get_array_module(x).empty((N * H, 2, W, 2, C), x.dtype)
    rows = x.reshape(N * H, 1, W, 1, C)

    def repeat(piece):
        squares[piece] = rows[piece]

    on_all_cores(repeat, row_pieces(N * H, 4 * W * C, x))
    return squares.reshape(N, 2 * H, 2 * W, C), UpsampleCache(x.shape)


def upsample_nearest_backward(dy, cache):
    """dy (N, 2H, 2W, C) -> dx (N, H, W, C): four sums of whole maps, each faster than one over axes of length two."""
    dx = dy[:, 0::2, 0::2] + dy[:, 0::2, 1::2]
    dx += dy[:, 1::2, 0::2]
    dx += dy[:, 1::2, 1::2]
    return dx.reshape(cache.shape)
