"""SiLU, quick GELU, GELU and GEGLU on the GPU: `minild.ops.activation`'s pairs, which keep x alone for the backward."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.kernels import dense, elementwise


class Cache(NamedTuple):
    x: Any


def gated(x, sharpness):
    """y = x · σ(sharpness · x)."""
    x = dense(x, x)
    y = get_array_module(x).empty_like(x)
    elementwise("activation", "gated", x.size, x, y, float(sharpness))
    return y, Cache(x)


def gated_backward(dy, cache, sharpness):
    (x,) = cache
    dx = get_array_module(x).empty_like(x)
    elementwise("activation", "gated_backward", x.size, dense(dy, x), x, dx, float(sharpness))
    return dx


def gelu(x):
    """y = x · Φ(x)."""
    x = dense(x, x)
    y = get_array_module(x).empty_like(x)
    elementwise("activation", "gelu", x.size, x, y)
    return y, Cache(x)


def gelu_backward(dy, cache):
    (x,) = cache
    dx = get_array_module(x).empty_like(x)
    elementwise("activation", "gelu_backward", x.size, dense(dy, x), x, dx)
    return dx


def geglu(x):
    """x (..., 2D) -> y (..., D) = hidden · gelu(gate)."""
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
