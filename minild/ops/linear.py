"""The affine map on the last axis."""

from typing import Any, NamedTuple

from minild.ops.validate import require_like, require_shape


class LinearCache(NamedTuple):
    x: Any
    weight: Any
    has_bias: bool


def require_linear(x, weight, bias=None):
    """ValueError unless the arguments of `linear` fit each other."""
    require_shape("weight", weight, (x.shape[-1], None))
    require_like("weight", weight, "x", x)
    if bias is not None:
        require_shape("bias", bias, (weight.shape[1],))
        require_like("bias", bias, "x", x)


def linear(x, weight, bias=None):
    """y = x @ weight + bias on the last axis.

    x (..., Cin), weight (Cin, Cout), bias (Cout,) or None -> y (..., Cout).
    Raises ValueError for a shape or dtype that does not fit.
    """
    require_linear(x, weight, bias)
    y = x @ weight
    if bias is not None:
        y = y + bias
    return y, LinearCache(x, weight, bias is not None)


def linear_backward(dy, cache):
    """dy (..., Cout) -> dx = dy @ weightᵀ, dweight = xᵀ @ dy, dbias = Σ dy (None without a bias).

    The weight was used once for every row of x, so its gradient sums over rows.
    """
    x, weight, has_bias = cache
    Cin, Cout = weight.shape
    dx = dy @ weight.T
    dweight = x.reshape(-1, Cin).T @ dy.reshape(-1, Cout)
    dbias = dy.reshape(-1, Cout).sum(axis=0) if has_bias else None
    return dx, dweight, dbias
