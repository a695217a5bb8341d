"""Group and layer normalisation in pieces that fit the cache, on all cores.

Group norm is folded into one multiply-add: y = x · scale + shift with one scale and one shift for each picture and
channel, so that only sums over pixels are ever taken of a whole array and everything else is on (N, C) numbers. So is
its backward. Its x̂ appears nowhere: it would be one more array to write and to read.
"""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.engine.cores import on_all_cores
from minild.engine.cpu.activation import gate, twice_gate_slope
from minild.engine.cpu.sums import sum_rows
from minild.engine.memory import map_pieces, row_pieces, workspace
from minild.ops.norm import LayerNormCache

WIDE = 256  # elements along the last axis, at most, unless the channels alone are more


class GroupNormCache(NamedTuple):
    x: Any
    gamma: Any
    mean: Any  # N,1,W: the group's mean, repeated for each channel of the pixels in a row
    rstd: Any  # N,1,W
    groups: int


def _pixels_in_a_row(P, C):
    """How many neighbouring pixels are merged into one row: NumPy is slow along short last axes."""
    together = 1
    while 2 * together * C <= WIDE and P % (2 * together) == 0:
        together *= 2
    return together


def _over_groups(per_channel, groups, C):
    """(N, W) sums by channel -> (N, 1, W): each channel gets the sum over its group; W is a multiple of C."""
    N, W = per_channel.shape
    by_group = per_channel.reshape(N, W // C, groups, C // groups)
    total = by_group.sum(axis=(1, 3), keepdims=True)
    return get_array_module(per_channel).broadcast_to(total, by_group.shape).reshape(N, 1, W)


def _sum_pixels(rows, pieces, *functions):
    """For each function, (N, W): what it gives for the pieces of (N, P, W), added up over the P rows.

    All functions see a piece, in their order, before the next piece is begun: it is in the cache.
    """
    sums = [None] * len(pieces)

    def add_up(i):
        sums[i] = [sum_rows(function(pieces[i])) for function in functions]

    on_all_cores(add_up, range(len(pieces)))
    totals = get_array_module(rows).zeros((len(functions), rows.shape[0], rows.shape[2]), rows.dtype)
    for (images, _), several in zip(pieces, sums):
        for total, of_piece in zip(totals, several):
            total[images] += of_piece
    return totals


def _in_rows(x):
    """x (N, ..., C) as (N, P, W), and its pieces: W is a multiple of C."""
    N, C = x.shape[0], x.shape[-1]
    W = _pixels_in_a_row(math.prod(x.shape[1:-1]), C) * C
    rows = x.reshape(N, -1, W)
    return rows, map_pieces(N, rows.shape[1], 1, W, x)


def _statistics(rows, pieces, groups, C, eps):
    """mean and rstd of each group, both (N, 1, W)."""
    xp = get_array_module(rows)
    _, P, W = rows.shape
    count = P * W // groups

    def squares(piece):
        centred = xp.subtract(rows[piece], mean[piece[0]], out=workspace("centred", rows[piece].shape, rows))
        centred *= centred
        return centred

    mean = _over_groups(_sum_pixels(rows, pieces, lambda piece: rows[piece])[0], groups, C) / count
    rstd = 1 / xp.sqrt(_over_groups(_sum_pixels(rows, pieces, squares)[0], groups, C) / count + eps)
    return mean, rstd


def _scale_and_shift(gamma, beta, mean, rstd):
    """The normalisation as x · scale + shift, both (N, 1, W)."""
    xp = get_array_module(mean)
    times = mean.shape[-1] // len(gamma)
    scale = rstd * xp.tile(gamma, times)
    return scale, xp.tile(beta, times) - mean * scale


def group_norm(x, gamma, beta, groups, eps=1e-5):
    """`group_norm` as x · scale + shift."""
    xp = get_array_module(x)
    rows, pieces = _in_rows(x)
    mean, rstd = _statistics(rows, pieces, groups, len(gamma), eps)
    scale, shift = _scale_and_shift(gamma, beta, mean, rstd)
    y = xp.empty_like(rows)

    def normalise(piece):
        images = piece[0]
        xp.multiply(rows[piece], scale[images], out=y[piece])
        y[piece] += shift[images]

    on_all_cores(normalise, pieces)
    return y.reshape(x.shape), GroupNormCache(x, gamma, mean, rstd, groups)


def group_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,)."""
    rows, _ = _in_rows(cache.x)
    drows = dy.reshape(rows.shape)
    return _differentiate(drows, lambda piece: drows[piece], cache, get_array_module(rows).empty_like(rows))


def _differentiate(drows, read, cache, dx, factor=1.0):
    """group_norm_backward for dy = factor · drows, (N, P, W).

    read(piece) gives a piece of drows at its first use, and fills it in. dx is written last, piece by piece, and may be
    the same array.
    """
    x, gamma, mean, rstd, groups = cache
    xp = get_array_module(x)
    rows, pieces = _in_rows(x)
    C, W = x.shape[-1], rows.shape[2]
    count = rows.shape[1] * W // groups
    gammas = xp.tile(gamma, W // C)

    def products(piece):
        return xp.multiply(drows[piece], rows[piece], out=workspace("products", rows[piece].shape, x))

    dy_sum, dy_x_sum = factor * _sum_pixels(drows, pieces, read, products)  # N,W
    dy_xhat_sum = (dy_x_sum - mean[:, 0] * dy_sum) * rstd[:, 0]
    through_mean = _over_groups(gammas * dy_sum, groups, C) / count
    through_variance = _over_groups(gammas * dy_xhat_sum, groups, C) / count
    dy_factor, x_factor = factor * rstd * gammas, rstd * rstd * through_variance
    constant = rstd * (mean * rstd * through_variance - through_mean)

    def differentiate(piece):
        images = piece[0]
        xp.multiply(drows[piece], dy_factor[images], out=dx[piece])
        dx[piece] -= xp.multiply(rows[piece], x_factor[images], out=workspace("products", rows[piece].shape, x))
        dx[piece] += constant[images]

    on_all_cores(differentiate, pieces)
    dgamma, dbeta = (per_channel.reshape(-1, C).sum(axis=0) for per_channel in (dy_xhat_sum, dy_sum))
    return dx.reshape(x.shape), dgamma, dbeta


class GroupNormSiluCache(NamedTuple):
    norm: GroupNormCache
    half: Any  # half of what SiLU was given; to compute it again takes as long as all of SiLU's forward


def group_norm_silu(x, gamma, beta, groups, eps=1e-5, keep=True):
    """`group_norm_silu`: each piece is activated while it is in the cache. Unless `keep`, there is no backward."""
    xp = get_array_module(x)
    rows, pieces = _in_rows(x)
    mean, rstd = _statistics(rows, pieces, groups, len(gamma), eps)
    scale, shift = (0.5 * factor for factor in _scale_and_shift(gamma, beta, mean, rstd))
    y = xp.empty_like(rows)
    halves = xp.empty_like(rows) if keep else None

    def activate(piece):
        images = piece[0]
        kept = workspace("half", rows[piece].shape, x) if halves is None else halves[piece]
        half = xp.multiply(rows[piece], scale[images], out=kept)
        half += shift[images]
        gate(half, y[piece])

    on_all_cores(activate, pieces)
    cache = GroupNormSiluCache(GroupNormCache(x, gamma, mean, rstd, groups), halves) if keep else None
    return y.reshape(x.shape), cache


def group_norm_silu_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,): silu_backward, then group_norm_backward."""
    norm, halves = cache
    drows = dy.reshape(halves.shape)
    dnormed = get_array_module(halves).empty_like(halves)  # twice the gradient of what SiLU was given

    def back_through_silu(piece):
        slope = twice_gate_slope(halves[piece], dnormed[piece])
        slope *= drows[piece]
        return slope

    return _differentiate(dnormed, back_through_silu, norm, dnormed, 0.5)


def layer_norm(x, gamma, beta, eps=1e-5):
    """`layer_norm`, means as products with a vector of 1 / D."""
    D = x.shape[-1]
    xp = get_array_module(x)
    rows = x.reshape(-1, D)
    y, xhat, rstd = xp.empty_like(rows), xp.empty_like(rows), xp.empty((len(rows), 1), x.dtype)
    mean_of_row = xp.full((D, 1), 1 / D, x.dtype)

    def normalise(piece):
        xp.subtract(rows[piece], rows[piece] @ mean_of_row, out=xhat[piece])
        squares = xp.multiply(xhat[piece], xhat[piece], out=y[piece])
        rstd[piece] = 1 / xp.sqrt(squares @ mean_of_row + eps)
        xhat[piece] *= rstd[piece]
        xp.multiply(xhat[piece], gamma, out=y[piece])
        y[piece] += beta

    on_all_cores(normalise, row_pieces(len(rows), D, x))
    return y.reshape(x.shape), LayerNormCache(xhat.reshape(x.shape), gamma, rstd.reshape(*x.shape[:-1], 1))


def layer_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (D,), dbeta (D,)."""
    xhat, gamma, rstd = cache
    dy_xhat = dy * xhat
    dgamma = sum_rows(dy_xhat.reshape(-1, dy.shape[-1]))
    dbeta = sum_rows(dy.reshape(-1, dy.shape[-1]))
    through_mean = (dy @ gamma)[..., None] / dy.shape[-1]
    through_variance = (dy_xhat @ gamma)[..., None] / dy.shape[-1]
    dx = dy * gamma
    dx -= through_mean
    dx -= xhat * through_variance
    dx *= rstd
    return dx, dgamma, dbeta
