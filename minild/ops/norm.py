"""Group normalisation (Wu & He 2018, arXiv 1803.08494) and layer normalisation (Ba et al. 2016, arXiv 1607.06450)."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.validate import require_like, require_shape


class GroupNormCache(NamedTuple):
    x: Any
    gamma: Any
    mean: Any  # N,1,C: the group's mean, repeated for each of its channels
    rstd: Any  # N,1,C
    groups: int


def _over_groups(per_channel, groups):
    """(N, C) sums by channel -> (N, 1, C): each channel gets the sum over its group."""
    N, C = per_channel.shape
    by_group = per_channel.reshape(N, groups, C // groups)
    total = by_group.sum(axis=2, keepdims=True)
    return get_array_module(per_channel).broadcast_to(total, by_group.shape).reshape(N, 1, C)


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
    rows = x.reshape(N, -1, C)
    count = rows.shape[1] * (C // groups)
    mean = _over_groups(rows.sum(axis=1), groups) / count
    centred = rows - mean
    var = _over_groups((centred * centred).sum(axis=1), groups) / count
    rstd = 1 / get_array_module(x).sqrt(var + eps)
    y = centred  # our own array: the rest is written over it
    y *= rstd * gamma
    y += beta
    return y.reshape(x.shape), GroupNormCache(x, gamma, mean, rstd, groups)


def group_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,).

    With x̂ = (x - mean)·rstd and dx̂ = γ·dy:
    dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)), the means over the group.
    Only sums over pixels are taken of whole arrays; the rest is on (N, C).
    """
    x, gamma, mean, rstd, groups = cache
    N, C = x.shape[0], x.shape[-1]
    rows, drows = x.reshape(N, -1, C), dy.reshape(N, -1, C)
    count = rows.shape[1] * (C // groups)
    dy_sum = drows.sum(axis=1)  # N,C
    dy_xhat_sum = ((drows * rows).sum(axis=1) - mean[:, 0] * dy_sum) * rstd[:, 0]
    through_mean = _over_groups(gamma * dy_sum, groups) / count
    through_variance = _over_groups(gamma * dy_xhat_sum, groups) / count
    dx = drows * (rstd * gamma)
    dx -= rows * (rstd * rstd * through_variance)
    dx += rstd * (mean * rstd * through_variance - through_mean)
    return dx.reshape(x.shape), dy_xhat_sum.sum(axis=0), dy_sum.sum(axis=0)


class LayerNormCache(NamedTuple):
    xhat: Any
    gamma: Any
    rstd: Any


def layer_norm(x, gamma, beta, eps=1e-5):
    """y = γ · (x - mean) / sqrt(var + eps) + β, mean and variance over the last axis.

    x (..., D), gamma and beta (D,) -> y like x. Raises ValueError for a shape or dtype that does not fit.
    """
    require_shape("gamma", gamma, (x.shape[-1],))
    require_shape("beta", beta, (x.shape[-1],))
    require_like("gamma", gamma, "x", x)
    xhat = x - x.mean(axis=-1, keepdims=True)
    var = (xhat * xhat).mean(axis=-1, keepdims=True)
    rstd = 1 / get_array_module(x).sqrt(var + eps)
    xhat *= rstd
    y = xhat * gamma
    y += beta
    return y, LayerNormCache(xhat, gamma, rstd)


def layer_norm_backward(dy, cache):
    """dy like x -> dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)), dgamma (D,), dbeta (D,)."""
    xhat, gamma, rstd = cache
    dy_xhat = dy * xhat
    dgamma = dy_xhat.reshape(-1, dy.shape[-1]).sum(axis=0)
    dbeta = dy.reshape(-1, dy.shape[-1]).sum(axis=0)
    dxhat = dy * gamma
    through_mean = dxhat.mean(axis=-1, keepdims=True)
    through_variance = (dy_xhat @ gamma)[..., None] / dy.shape[-1]
    dx = dxhat
    dx -= through_mean
    dx -= xhat * through_variance
    dx *= rstd
    return dx, dgamma, dbeta
