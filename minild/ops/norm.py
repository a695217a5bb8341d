"""Normalisation by group (Wu & He 2018, arXiv 1803.08494), by row (layer norm, Ba et al. 2016, arXiv 1607.06450), by
channel over a batch (Ioffe & Szegedy 2015, arXiv 1502.03167), and to unit length."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.activation import silu, silu_backward
from minild.ops.validate import require_like, require_shape


class GroupNormCache(NamedTuple):
    xhat: Any  # like x: normalised, before gamma and beta
    gamma: Any
    rstd: Any  # N,1,G,1: one over the standard deviation of each group
    groups: int


def require_group_norm(x, gamma, beta, groups, eps=1e-5):
    """ValueError unless the arguments of `group_norm` fit each other."""
    C = x.shape[-1]
    if groups < 1 or C % groups:
        raise ValueError(f"groups: expected a divisor of the {C} channels of x, got {groups}")
    require_shape("gamma", gamma, (C,))
    require_shape("beta", beta, (C,))
    require_like("gamma", gamma, "x", x)
    require_like("beta", beta, "x", x)


def by_group(x, groups):
    """x (N, ..., C) -> (N, pixels, groups, C / groups): the mean of a group is taken over axes 1 and 3."""
    return x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)


def group_norm(x, gamma, beta, groups, eps=1e-5):
    """y = γ · x̂ + β, x̂ = (x - mean) / sqrt(var + eps), mean and variance over the pixels and channels of each group.

    x (N, ..., C), gamma and beta (C,) -> y like x. Raises ValueError if `groups` does not divide C, or for a shape
    or dtype that does not fit.
    """
    require_group_norm(x, gamma, beta, groups)
    grouped = by_group(x, groups)  # N,P,G,C/G
    centred = grouped - grouped.mean(axis=(1, 3), keepdims=True)
    variance = (centred * centred).mean(axis=(1, 3), keepdims=True)
    rstd = 1 / get_array_module(x).sqrt(variance + eps)  # N,1,G,1
    xhat = (centred * rstd).reshape(x.shape)
    return gamma * xhat + beta, GroupNormCache(xhat, gamma, rstd, groups)


def group_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,).

    x reaches y by three paths: directly, through its group's mean, and through its group's variance. With dx̂ = γ · dy:
    dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)), the means over the group.
    """
    xhat, gamma, rstd, groups = cache
    C = dy.shape[-1]
    dgamma = (dy * xhat).reshape(-1, C).sum(axis=0)
    dbeta = dy.reshape(-1, C).sum(axis=0)
    dxhat, xhat = by_group(gamma * dy, groups), by_group(xhat, groups)  # N,P,G,C/G
    through_mean = dxhat.mean(axis=(1, 3), keepdims=True)
    through_variance = xhat * (dxhat * xhat).mean(axis=(1, 3), keepdims=True)
    dx = rstd * (dxhat - through_mean - through_variance)
    return dx.reshape(dy.shape), dgamma, dbeta


class GroupNormSiluCache(NamedTuple):
    norm: Any
    silu: Any


def group_norm_silu(x, gamma, beta, groups, eps=1e-5, group_norm=group_norm, silu=silu):
    """y = silu(group_norm(x, gamma, beta, groups, eps)), what comes before both 3 x 3 convolutions of a ResNet block.

    Shapes and errors are those of group_norm.
    """
    normed, norm_cache = group_norm(x, gamma, beta, groups, eps)
    y, silu_cache = silu(normed)
    return y, GroupNormSiluCache(norm_cache, silu_cache)


def group_norm_silu_backward(dy, cache, group_norm_backward=group_norm_backward, silu_backward=silu_backward):
    """dy like x -> dx, dgamma (C,), dbeta (C,): back through SiLU, then through the norm."""
    dnormed = silu_backward(dy, cache.silu)
    return group_norm_backward(dnormed, cache.norm)


class LayerNormCache(NamedTuple):
    xhat: Any  # like x: normalised, before gamma and beta
    gamma: Any
    rstd: Any  # ...,1: one over the standard deviation of each row


def require_layer_norm(x, gamma, beta, eps=1e-5):
    """ValueError unless the arguments of `layer_norm` fit each other."""
    require_shape("gamma", gamma, (x.shape[-1],))
    require_shape("beta", beta, (x.shape[-1],))
    require_like("gamma", gamma, "x", x)
    require_like("beta", beta, "x", x)


def layer_norm(x, gamma, beta, eps=1e-5):
    """y = γ · x̂ + β, x̂ = (x - mean) / sqrt(var + eps), mean and variance over the last axis.

    x (..., D), gamma and beta (D,) -> y like x. Raises ValueError for a shape or dtype that does not fit.
    """
    require_layer_norm(x, gamma, beta)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    rstd = 1 / get_array_module(x).sqrt(variance + eps)
    xhat = centred * rstd
    return gamma * xhat + beta, LayerNormCache(xhat, gamma, rstd)


def layer_norm_backward(dy, cache):
    """dy like x -> dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)) with dx̂ = γ · dy, dgamma (D,), dbeta (D,).

    The same three paths as group norm's, a group now being a row.
    """
    xhat, gamma, rstd = cache
    D = dy.shape[-1]
    dgamma = (dy * xhat).reshape(-1, D).sum(axis=0)
    dbeta = dy.reshape(-1, D).sum(axis=0)
    dxhat = gamma * dy
    through_mean = dxhat.mean(axis=-1, keepdims=True)
    through_variance = xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    return rstd * (dxhat - through_mean - through_variance), dgamma, dbeta


class BatchNormCache(NamedTuple):
    xhat: Any  # like x: normalised, before gamma and beta
    gamma: Any
    rstd: Any  # C: one over the standard deviation of each channel
    own_statistics: bool  # mean and variance are the batch's: they move with x


def require_batch_norm(x, gamma, beta, mean=None, variance=None, eps=1e-5):
    """ValueError unless the arguments of `batch_norm` fit each other."""
    if (mean is None) != (variance is None):
        raise ValueError("mean and variance: expected both, or neither")
    for name, array in (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)):
        if array is not None:
            require_shape(name, array, (x.shape[-1],))
            require_like(name, array, "x", x)


def batch_norm(x, gamma, beta, mean=None, variance=None, eps=1e-5):
    """y = γ · x̂ + β, x̂ = (x - mean) / sqrt(var + eps), one mean and variance for each channel.

    They are the batch's own, over all axes but the last (Ioffe & Szegedy 2015, algorithm 1); or, where `mean` and
    `variance` (C,) are given, as in inference, these. x (..., C), gamma and beta (C,) -> y like x. Raises ValueError
    for a shape or dtype that does not fit.
    """
    require_batch_norm(x, gamma, beta, mean, variance)
    own = mean is None
    if own:
        mean, variance = channel_statistics(x)
    rstd = 1 / get_array_module(x).sqrt(variance + eps)
    xhat = (x - mean) * rstd
    return gamma * xhat + beta, BatchNormCache(xhat, gamma, rstd, own)


def channel_statistics(x):
    """x (..., C) -> its mean and its variance (divided by the count) in each channel, both (C,)."""
    rows = x.reshape(-1, x.shape[-1])
    mean = rows.mean(axis=0)
    centred = rows - mean
    return mean, (centred * centred).mean(axis=0)


def batch_norm_backward(dy, cache):
    """dy like x -> dx, dgamma (C,), dbeta (C,).

    With the batch's own statistics the same three paths as group norm's, a group now being a channel of the whole
    batch; with given ones only the direct path, dx = γ · rstd · dy.
    """
    xhat, gamma, rstd, own_statistics = cache
    axes = tuple(range(dy.ndim - 1))
    dgamma, dbeta = (dy * xhat).sum(axis=axes), dy.sum(axis=axes)
    dxhat = gamma * dy
    if own_statistics:
        dxhat = dxhat - dxhat.mean(axis=axes) - xhat * (dxhat * xhat).mean(axis=axes)
    return rstd * dxhat, dgamma, dbeta


class UnitNormCache(NamedTuple):
    x: Any
    length: Any  # ...,1
    eps: float


def unit_norm(x, eps=1e-10):
    """y = x / (‖x‖ + eps), the norm over the last axis (LPIPS, Zhang et al. 2018, arXiv 1801.03924, equation 1).

    x (..., C) -> y like x.
    """
    length = get_array_module(x).sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / (length + eps), UnitNormCache(x, length, eps)


def unit_norm_backward(dy, cache):
    """dx = dy / (‖x‖ + eps) - x · (x · dy) / (‖x‖ (‖x‖ + eps)²); the second term, of x itself, is 0 where x is 0."""
    x, length, eps = cache
    scale = length + eps
    xhat = x / get_array_module(x).where(length > 0, length, 1)
    return (dy - xhat * (xhat * dy).sum(axis=-1, keepdims=True) * (length / scale)) / scale
