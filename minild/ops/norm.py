"""Group normalisation (Wu & He 2018, arXiv 1803.08494) and layer normalisation (Ba et al. 2016, arXiv 1607.06450)."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module, on_all_cores, pieces, workspace
from minild.ops import kernels
from minild.ops.bands import bands
from minild.ops.kernels import norm as norm_kernels
from minild.ops.reduce import sum_rows
from minild.ops.validate import require_like, require_shape

WIDE = 256  # elements along the last axis, at least, where that can be had


class GroupNormCache(NamedTuple):
    x: Any
    gamma: Any
    mean: Any  # N,1,W: the group's mean, repeated for each channel of the pixels in a row
    rstd: Any  # N,1,W
    groups: int


def _pixels_in_a_row(P, C):
    """How many pixels are worked on as one of as many times the channels: NumPy is slow along short last axes."""
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


def _sum_pixels(rows, parts, function):
    """(N, W): the sums over the rows of (N, P, W) of what `function` gives for each of its parts (images, P)."""
    sums = [None] * len(parts)

    def add_up(i):
        sums[i] = sum_rows(function(parts[i]))

    on_all_cores(add_up, range(len(parts)))
    total = get_array_module(rows).zeros((rows.shape[0], rows.shape[2]), rows.dtype)
    for (images, _), part in zip(parts, sums):
        total[images] += part
    return total


def group_norm(x, gamma, beta, groups, eps=1e-5):
    """y = γ · (x - mean) / sqrt(var + eps) + β, mean and variance over the pixels and channels of each group.

    x (N, ..., C), gamma and beta (C,) -> y like x. Raises ValueError if `groups` does not divide C, or for a shape
    or dtype that does not fit.
    """
    N, C = x.shape[0], x.shape[-1]
    if C % groups:
        raise ValueError(f"groups: expected a divisor of the {C} channels of x, got {groups}")
    require_shape("gamma", gamma, (C,))
    require_shape("beta", beta, (C,))
    require_like("gamma", gamma, "x", x)
    if kernels.serve(x):
        return norm_kernels.group_norm(x, gamma, beta, groups, eps)
    xp = get_array_module(x)
    P = math.prod(x.shape[1:-1])
    W = _pixels_in_a_row(P, C) * C
    rows = x.reshape(N, -1, W)
    count = P * (C // groups)
    parts = bands(N, rows.shape[1], 1, W, x)

    def squares(part):
        centred = xp.subtract(rows[part], mean[part[0]], out=workspace("centred", rows[part].shape, x))
        centred *= centred
        return centred

    mean = _over_groups(_sum_pixels(rows, parts, lambda part: rows[part]), groups, C) / count
    rstd = 1 / xp.sqrt(_over_groups(_sum_pixels(rows, parts, squares), groups, C) / count + eps)
    scale = rstd * xp.tile(gamma, W // C)
    shift = xp.tile(beta, W // C) - mean * scale
    y = xp.empty_like(rows)

    def normalise(part):
        images = part[0]
        xp.multiply(rows[part], scale[images], out=y[part])
        y[part] += shift[images]

    on_all_cores(normalise, parts)
    return y.reshape(x.shape), GroupNormCache(x, gamma, mean, rstd, groups)


def group_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,).

    With x̂ = (x - mean)·rstd and dx̂ = γ·dy:
    dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)), the means over the group.
    Only sums over pixels are taken of whole arrays; the rest is on (N, W).
    """
    if kernels.serve(cache.x):
        return norm_kernels.group_norm_backward(dy, cache)
    x, gamma, mean, rstd, groups = cache
    xp = get_array_module(x)
    N, C, W = x.shape[0], x.shape[-1], mean.shape[-1]
    rows, drows = x.reshape(N, -1, W), dy.reshape(N, -1, W)
    count = rows.shape[1] * W // groups
    parts = bands(N, rows.shape[1], 1, W, x)
    gammas = xp.tile(gamma, W // C)

    def products(part):
        return xp.multiply(drows[part], rows[part], out=workspace("products", rows[part].shape, x))

    dy_sum = _sum_pixels(drows, parts, lambda part: drows[part])  # N,W
    dy_xhat_sum = (_sum_pixels(drows, parts, products) - mean[:, 0] * dy_sum) * rstd[:, 0]
    through_mean = _over_groups(gammas * dy_sum, groups, C) / count
    through_variance = _over_groups(gammas * dy_xhat_sum, groups, C) / count
    dy_factor, x_factor = rstd * gammas, rstd * rstd * through_variance
    constant = rstd * (mean * rstd * through_variance - through_mean)
    dx = xp.empty_like(rows)

    def differentiate(part):
        images = part[0]
        xp.multiply(drows[part], dy_factor[images], out=dx[part])
        dx[part] -= xp.multiply(rows[part], x_factor[images], out=workspace("products", rows[part].shape, x))
        dx[part] += constant[images]

    on_all_cores(differentiate, parts)
    dgamma, dbeta = (per_channel.reshape(-1, C).sum(axis=0) for per_channel in (dy_xhat_sum, dy_sum))
    return dx.reshape(x.shape), dgamma, dbeta


class LayerNormCache(NamedTuple):
    xhat: Any
    gamma: Any
    rstd: Any


def layer_norm(x, gamma, beta, eps=1e-5):
    """y = γ · (x - mean) / sqrt(var + eps) + β, mean and variance over the last axis.

    x (..., D), gamma and beta (D,) -> y like x. Raises ValueError for a shape or dtype that does not fit.
    """
    D = x.shape[-1]
    require_shape("gamma", gamma, (D,))
    require_shape("beta", beta, (D,))
    require_like("gamma", gamma, "x", x)
    if kernels.serve(x):
        return norm_kernels.layer_norm(x, gamma, beta, eps)
    xp = get_array_module(x)
    rows = x.reshape(-1, D)
    y, xhat, rstd = xp.empty_like(rows), xp.empty_like(rows), xp.empty((len(rows), 1), x.dtype)
    mean_of_row = xp.full((D, 1), 1 / D, x.dtype)

    def normalise(part):
        xp.subtract(rows[part], rows[part] @ mean_of_row, out=xhat[part])
        squares = xp.multiply(xhat[part], xhat[part], out=y[part])
        rstd[part] = 1 / xp.sqrt(squares @ mean_of_row + eps)
        xhat[part] *= rstd[part]
        xp.multiply(xhat[part], gamma, out=y[part])
        y[part] += beta

    on_all_cores(normalise, pieces(len(rows), D, x))
    return y.reshape(x.shape), LayerNormCache(xhat.reshape(x.shape), gamma, rstd.reshape(*x.shape[:-1], 1))


def layer_norm_backward(dy, cache):
    """dy like x -> dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)), dgamma (D,), dbeta (D,)."""
    if kernels.serve(cache.gamma):
        return norm_kernels.layer_norm_backward(dy, cache)
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
