"""SiLU, quick GELU, GELU and GEGLU on the GPU; all keep x alone for the backward."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.engine.cuda import dense, elementwise
from minild.ops.activation import QUICK


class Cache(NamedTuple):
    x: Any


def _gated(x, sharpness):
    """y = x · σ(sharpness · x)."""
    x = dense(x, x)
    y = get_array_module(x).empty_like(x)
    elementwise("activation", "gated", x.size, x, y, float(sharpness))
    return y, Cache(x)


def _gated_backward(dy, cache, sharpness):
    (x,) = cache
    dx = get_array_module(x).empty_like(x)
    elementwise("activation", "gated_backward", x.size, dense(dy, x), x, dx, float(sharpness))
    return dx


def silu(x):
    """`silu`."""
    return _gated(x, 1.0)


def silu_backward(dy, cache):
    """dy like x -> dx."""
    return _gated_backward(dy, cache, 1.0)


def quick_gelu(x):
    """`quick_gelu`."""
    return _gated(x, QUICK)


def quick_gelu_backward(dy, cache):
    """dy like x -> dx."""
    return _gated_backward(dy, cache, QUICK)


def gelu(x):
    """`gelu`."""
    x = dense(x, x)
    y = get_array_module(x).empty_like(x)
    elementwise("activation", "gelu", x.size, x, y)
    return y, Cache(x)


def gelu_backward(dy, cache):
    """dy like x -> dx."""
    (x,) = cache
    dx = get_array_module(x).empty_like(x)
    elementwise("activation", "gelu_backward", x.size, dense(dy, x), x, dx)
    return dx


def geglu(x):
    """`geglu`."""
    x = dense(x, x)
    half = x.shape[-1] // 2
    y = get_array_module(x).empty((*x.shape[:-1], half), x.dtype)
    elementwise("activation", "geglu", y.size, x, y, half)
    return y, Cache(x)


def geglu_backward(dy, cache):
    """dy (..., D) -> dx (..., 2D)."""
    (x,) = cache
    dx = get_array_module(x).empty_like(x)
    elementwise("activation", "geglu_backward", dy.size, dense(dy, x), x, dx, x.shape[-1] // 2)
    return dx
