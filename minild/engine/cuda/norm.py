"""Group and layer normalisation on the GPU."""

import math
from typing import Any, NamedTuple

import numpy as np

from minild.backend import get_array_module
from minild.engine.cuda import dense, launch

THREADS = 256  # about as many in a block
PIXELS = 32  # of a tile that one thread visits
ROWS = 8  # that a block of layer norm takes, a warp each


class GroupNormCache(NamedTuple):
    x: Any
    gamma: Any
    beta: Any
    statistics: Any  # N,G,2: mean and rstd of each group, float32
    silu: int  # 1 where SiLU follows


def _geometry(N, P, C, groups):
    """(lanes, tile), grid, block, as group_norm.cu describes them: blocks of equally many whole groups."""
    lanes = min(C // groups, THREADS)
    slices = -(-groups // (THREADS // lanes))
    together = -(-groups // slices)
    rows = max(1, min(P, THREADS // (together * lanes)))
    tile = PIXELS * rows
    return (lanes, tile), (-(-P // tile), slices, N), (together * lanes, rows)


def group_norm(x, gamma, beta, groups, eps=1e-5):
    """`group_norm`."""
    return _group_norm(x, gamma, beta, groups, eps, silu=0)


def group_norm_silu(x, gamma, beta, groups, eps=1e-5):
    """`group_norm_silu`, in the same three kernels; group_norm_backward is its backward, too."""
    return _group_norm(x, gamma, beta, groups, eps, silu=1)


def _group_norm(x, gamma, beta, groups, eps, silu):
    xp = get_array_module(x)
    x, gamma, beta = dense(x, x), dense(gamma, x), dense(beta, x)
    N, P, C = x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]
    width = C // groups
    (lanes, tile), grid, block = _geometry(N, P, C, groups)
    tiles = grid[0]
    partial = xp.empty((N, tiles, groups, 2), np.float32)
    statistics = xp.empty((N, groups, 2), np.float32)
    y = xp.empty_like(x)
    launch("group_norm", "group_norm_tiles", x, grid, block, x, partial, P, C, width, lanes, tile)
    launch("group_norm", "group_norm_statistics", x, (groups, N), (min(tiles, THREADS),),
           partial, statistics, P, width, tiles, tile, float(eps))
    launch("group_norm", "group_norm_normalise", x, grid, block,
           x, gamma, beta, statistics, y, silu, P, C, width, lanes, tile)
    return y, GroupNormCache(x, gamma, beta, statistics, silu)


def group_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,)."""
    x, gamma, beta, statistics, silu = cache
    xp = get_array_module(x)
    dy = dense(dy, x)
    N, P, C, groups = x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1], statistics.shape[1]
    width = C // groups
    (lanes, tile), grid, block = _geometry(N, P, C, groups)
    tiles = grid[0]
    partial = xp.empty((N, tiles, C, 2), np.float32)
    sums, means = xp.empty((N, 2, C), np.float32), xp.empty((N, groups, 2), np.float32)
    dx = xp.empty_like(x)
    launch("group_norm", "group_norm_channel_tiles", x, grid, block,
           dy, x, gamma, beta, statistics, partial, silu, P, C, width, lanes, tile)
    launch("group_norm", "group_norm_means", x, (groups, N), (lanes, max(1, min(tiles, THREADS // lanes))),
           partial, gamma, sums, means, P, width, tiles)
    launch("group_norm", "group_norm_differentiate", x, grid, block,
           dy, x, gamma, beta, statistics, means, dx, silu, P, C, width, lanes, tile)
    dbeta, dgamma = sums.sum(axis=0).astype(x.dtype)
    return dx, dgamma, dbeta


class LayerNormCache(NamedTuple):
    x: Any
    gamma: Any
    statistics: Any  # rows,2: mean and rstd, float32


def layer_norm(x, gamma, beta, eps=1e-5):
    """`layer_norm`."""
    xp = get_array_module(x)
    x, gamma, beta = dense(x, x), dense(gamma, x), dense(beta, x)
    D = x.shape[-1]
    rows = x.size // D
    y, statistics = xp.empty_like(x), xp.empty((rows, 2), np.float32)
    launch("layer_norm", "layer_norm", x, (-(-rows // ROWS),), (32, ROWS),
           x, gamma, beta, y, statistics, rows, D, float(eps))
    return y, LayerNormCache(x, gamma, statistics)


def layer_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (D,), dbeta (D,)."""
    x, gamma, statistics = cache
    xp = get_array_module(x)
    dy = dense(dy, x)
    rows, D = len(statistics), x.shape[-1]
    chunk = max(8 * PIXELS, -(-rows // 256))
    chunks = -(-rows // chunk)
    dx, partial = xp.empty_like(x), xp.empty((chunks, 2, D), np.float32)
    launch("layer_norm", "layer_norm_differentiate", x, (-(-rows // ROWS),), (32, ROWS),
           dy, x, gamma, statistics, dx, rows, D)
    launch("layer_norm", "layer_norm_sum_rows", x, (-(-D // 32), chunks), (32, 8),
           dy, x, statistics, partial, rows, D, chunk)
    dgamma, dbeta = partial.sum(axis=0).astype(x.dtype)
    return dx, dgamma, dbeta
