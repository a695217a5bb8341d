"""Group normalisation (Wu & He 2018, arXiv 1803.08494) and layer normalisation (Ba et al. 2016, arXiv 1607.06450)."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module, in_inference, on_all_cores, pieces, workspace
from minild.ops import kernels
from minild.ops.activation import gate, twice_gate_slope
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


def _sum_pixels(rows, parts, *functions):
    """For each function (N, W): the sums over the rows of (N, P, W) of what it gives for its parts (images, P).

    All functions see a part before the next one is begun, while it is in the cache.
    """
    sums = [None] * len(parts)

    def add_up(i):
        sums[i] = [sum_rows(function(parts[i])) for function in functions]

    on_all_cores(add_up, range(len(parts)))
    totals = get_array_module(rows).zeros((len(functions), rows.shape[0], rows.shape[2]), rows.dtype)
    for (images, _), several in zip(parts, sums):
        for total, part in zip(totals, several):
            total[images] += part
    return totals


def _in_rows(x):
    """x (N, ..., C) as (N, P, W), and its bands: W is a multiple of C."""
    N, C = x.shape[0], x.shape[-1]
    W = _pixels_in_a_row(math.prod(x.shape[1:-1]), C) * C
    rows = x.reshape(N, -1, W)
    return rows, bands(N, rows.shape[1], 1, W, x)


def _statistics(rows, parts, groups, C, eps):
    """mean and rstd of each group, both (N, 1, W)."""
    xp = get_array_module(rows)
    _, P, W = rows.shape
    count = P * W // groups

    def squares(part):
        centred = xp.subtract(rows[part], mean[part[0]], out=workspace("centred", rows[part].shape, rows))
        centred *= centred
        return centred

    mean = _over_groups(_sum_pixels(rows, parts, lambda part: rows[part])[0], groups, C) / count
    rstd = 1 / xp.sqrt(_over_groups(_sum_pixels(rows, parts, squares)[0], groups, C) / count + eps)
    return mean, rstd


def _scale_and_shift(gamma, beta, mean, rstd):
    """The normalisation as x · scale + shift, both (N, 1, W)."""
    xp = get_array_module(mean)
    times = mean.shape[-1] // len(gamma)
    scale = rstd * xp.tile(gamma, times)
    return scale, xp.tile(beta, times) - mean * scale


def _require_affine(x, gamma, beta, groups):
    C = x.shape[-1]
    if C % groups:
        raise ValueError(f"groups: expected a divisor of the {C} channels of x, got {groups}")
    require_shape("gamma", gamma, (C,))
    require_shape("beta", beta, (C,))
    require_like("gamma", gamma, "x", x)


def group_norm(x, gamma, beta, groups, eps=1e-5):
    """y = γ · (x - mean) / sqrt(var + eps) + β, mean and variance over the pixels and channels of each group.

    x (N, ..., C), gamma and beta (C,) -> y like x. Raises ValueError if `groups` does not divide C, or for a shape
    or dtype that does not fit.
    """
    _require_affine(x, gamma, beta, groups)
    if kernels.serve(x):
        return norm_kernels.group_norm(x, gamma, beta, groups, eps)
    xp = get_array_module(x)
    rows, parts = _in_rows(x)
    mean, rstd = _statistics(rows, parts, groups, len(gamma), eps)
    scale, shift = _scale_and_shift(gamma, beta, mean, rstd)
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
    rows, _ = _in_rows(cache.x)
    drows = dy.reshape(rows.shape)
    return _differentiate(drows, lambda part: drows[part], cache, get_array_module(rows).empty_like(rows))


def _differentiate(drows, read, cache, dx, factor=1.0):
    """group_norm_backward for dy = factor · drows, (N, P, W); read(part) gives a part of drows at its first use.

    dx is written last, part by part, and may be the same array.
    """
    x, gamma, mean, rstd, groups = cache
    xp = get_array_module(x)
    rows, parts = _in_rows(x)
    C, W = x.shape[-1], rows.shape[2]
    count = rows.shape[1] * W // groups
    gammas = xp.tile(gamma, W // C)

    def products(part):
        return xp.multiply(drows[part], rows[part], out=workspace("products", rows[part].shape, x))

    dy_sum, dy_x_sum = factor * _sum_pixels(drows, parts, read, products)  # N,W
    dy_xhat_sum = (dy_x_sum - mean[:, 0] * dy_sum) * rstd[:, 0]
    through_mean = _over_groups(gammas * dy_sum, groups, C) / count
    through_variance = _over_groups(gammas * dy_xhat_sum, groups, C) / count
    dy_factor, x_factor = factor * rstd * gammas, rstd * rstd * through_variance
    constant = rstd * (mean * rstd * through_variance - through_mean)

    def differentiate(part):
        images = part[0]
        xp.multiply(drows[part], dy_factor[images], out=dx[part])
        dx[part] -= xp.multiply(rows[part], x_factor[images], out=workspace("products", rows[part].shape, x))
        dx[part] += constant[images]

    on_all_cores(differentiate, parts)
    dgamma, dbeta = (per_channel.reshape(-1, C).sum(axis=0) for per_channel in (dy_xhat_sum, dy_sum))
    return dx.reshape(x.shape), dgamma, dbeta


class GroupNormSiluCache(NamedTuple):
    norm: GroupNormCache
    half: Any  # half of what SiLU was given; to compute it again takes as long as all of SiLU's forward


def group_norm_silu(x, gamma, beta, groups, eps=1e-5):
    """y = silu(group_norm(x, gamma, beta, groups, eps)), what comes before every convolution of a ResNet block.

    Shapes and errors are those of group_norm. Each part is activated while it is in the processor's cache.
    """
    _require_affine(x, gamma, beta, groups)
    if kernels.serve(x):
        return norm_kernels.group_norm_silu(x, gamma, beta, groups, eps)
    xp = get_array_module(x)
    rows, parts = _in_rows(x)
    mean, rstd = _statistics(rows, parts, groups, len(gamma), eps)
    scale, shift = (0.5 * factor for factor in _scale_and_shift(gamma, beta, mean, rstd))
    y = xp.empty_like(rows)
    halves = None if in_inference() else xp.empty_like(rows)

    def activate(part):
        images = part[0]
        kept = workspace("half", rows[part].shape, x) if halves is None else halves[part]
        half = xp.multiply(rows[part], scale[images], out=kept)
        half += shift[images]
        gate(half, y[part])

    on_all_cores(activate, parts)
    return y.reshape(x.shape), GroupNormSiluCache(GroupNormCache(x, gamma, mean, rstd, groups), halves)


def group_norm_silu_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,): silu_backward, then group_norm_backward."""
    if isinstance(cache, norm_kernels.GroupNormCache):
        return norm_kernels.group_norm_backward(dy, cache)
    norm, halves = cache
    drows = dy.reshape(halves.shape)
    dnormed = get_array_module(halves).empty_like(halves)  # twice the gradient of what SiLU was given

    def back_through_silu(part):
        slope = twice_gate_slope(halves[part], dnormed[part])
        slope *= drows[part]
        return slope

    return _differentiate(dnormed, back_through_silu, norm, dnormed, 0.5)


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
