"""The affine map on the last axis."""

from typing import Any, NamedTuple

from minild.ops.reduce import sum_rows
from minild.ops.validate import require_like, require_shape


class LinearCache(NamedTuple):
    x: Any
    weight: Any
    has_bias: bool


def linear(x, weight, bias=None):
    """y = x @ weight + bias on the last axis, as one GEMM.

    x (..., Cin), weight (Cin, Cout), bias (Cout,) or None -> y (..., Cout).
    Raises ValueError for a shape or dtype that does not fit.
    """
    require_shape("weight", weight, (x.shape[-1], None))
    require_like("weight", weight, "x", x)
    y = x.reshape(-1, x.shape[-1]) @ weight
    if bias is not None:
        require_shape("bias", bias, (weight.shape[1],))
        require_like("bias", bias, "x", x)
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1]), LinearCache(x, weight, bias is not None)


def linear_backward(dy, cache):
    """dy (..., Cout) -> dx = dy @ weightᵀ, dweight = xᵀ @ dy, dbias = Σ dy (None without a bias)."""
    x, weight, has_bias = cache
    rows, drows = x.reshape(-1, weight.shape[0]), dy.reshape(-1, weight.shape[1])
    dx = (drows @ weight.T).reshape(x.shape)
    dweight = rows.T @ drows
    dbias = sum_rows(drows) if has_bias else None
    return dx, dweight, dbias
