"""Activations in pieces that fit the cache, on all cores, with as few passes as their formulas allow.

SiLU and quick GELU are one function with another sharpness s: x · σ(s x) = h + h · tanh(s h) of h = x / 2.
"""

import math

import numpy as np

from minild.backend import get_array_module
from minild.engine.cores import on_all_cores
from minild.engine.cpu.sums import sum_columns
from minild.engine.memory import row_pieces, workspace
from minild.ops.activation import (
    LARGEST,
    QUICK,
    T_LOW,
    GeluCache,
    SiluCache,
    SoftmaxCache,
    erfc_polynomial,
)


def gate(half, out, sharpness=1.0):
    """x · σ(sharpness · x) of half = x / 2, written to `out`."""
    doubled = get_array_module(half).tanh(half if sharpness == 1 else sharpness * half, out=out)  # 2 σ - 1
    doubled += 1
    doubled *= half
    return doubled


def twice_gate_slope(half, out, sharpness=1.0):
    """Twice the slope of x · σ(sharpness · x) for h = x / 2, written to `out`.

    With t = tanh(sharpness · h), σ = (1 + t) / 2, so σ · (1 + sharpness · x · (1 - σ)) is half of
    (1 + t) · (1 + sharpness · h · (1 - t)).
    """
    sharpened = half if sharpness == 1 else sharpness * half
    xp = get_array_module(half)
    t = xp.tanh(sharpened, out=workspace("tanh", half.shape, half))
    slope = xp.subtract(1, t, out=out)
    slope *= sharpened
    slope += 1
    t += 1
    slope *= t
    return slope


def _gated(x, sharpness):
    """x · σ(sharpness · x), and its cache; σ is computed again: that takes as long as fetching it from memory."""
    xp = get_array_module(x)
    rows = x.reshape(-1, x.shape[-1])
    y = xp.empty_like(rows)

    def multiply(piece):
        half = xp.multiply(rows[piece], 0.5, out=workspace("half", rows[piece].shape, x))
        gate(half, y[piece], sharpness)

    on_all_cores(multiply, row_pieces(*rows.shape, x))
    return y.reshape(x.shape), SiluCache(x)


def _gated_backward(dy, cache, sharpness):
    """dx = dy · σ · (1 + sharpness · x · (1 - σ))."""
    (x,) = cache
    xp = get_array_module(x)
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, x.shape[-1])
    dx = xp.empty_like(rows)

    def differentiate(piece):
        half = xp.multiply(rows[piece], 0.5, out=workspace("half", rows[piece].shape, x))
        slope = twice_gate_slope(half, dx[piece], sharpness)
        slope *= 0.5
        slope *= drows[piece]

    on_all_cores(differentiate, row_pieces(*rows.shape, x))
    return dx.reshape(x.shape)


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


def erf(x, out=None):
    """`erf`, in workspace but for the result."""
    xp = get_array_module(x)
    highest, *lower = erfc_polynomial(8 if x.dtype.itemsize <= 4 else 20)
    z = xp.abs(x, out=workspace("erf z", x.shape, x))
    xp.minimum(z, LARGEST, out=z)
    t = xp.add(z, 2, out=workspace("erf t", x.shape, x))
    xp.divide(2, t, out=t)
    u = xp.multiply(t, 2 / (1 - T_LOW), out=workspace("erf u", x.shape, x))
    u -= 2 * T_LOW / (1 - T_LOW) + 1
    exponent = xp.multiply(u, highest, out=workspace("erf exponent", x.shape, x))
    for coefficient in lower[:-1]:
        exponent += coefficient
        exponent *= u
    exponent += lower[-1]
    z *= z
    exponent -= z
    erfc = xp.exp(exponent, out=exponent)
    erfc *= t
    return xp.copysign(xp.subtract(1, erfc, out=erfc), x, out=out)


def _normal_cdf(x, out=None):
    """Φ(x) = (1 + erf(x / √2)) / 2."""
    scaled = get_array_module(x).multiply(x, math.sqrt(0.5), out=workspace("scaled", x.shape, x))
    cdf = erf(scaled, out=out)
    cdf += 1
    cdf *= 0.5
    return cdf


def _gelu_slope(x, cdf):
    """gelu'(x) = Φ(x) + x · φ(x), φ the normal density; in workspace."""
    xp = get_array_module(x)
    slope = xp.multiply(x, x, out=workspace("slope", x.shape, x))
    slope *= -0.5
    xp.exp(slope, out=slope)
    slope *= 1 / math.sqrt(2 * math.pi)
    slope *= x
    slope += cdf
    return slope


def gelu(x):
    """`gelu`."""
    cdf = _normal_cdf(x)
    return x * cdf, GeluCache(x, cdf)


def gelu_backward(dy, cache):
    """dy like x -> dx."""
    return dy * _gelu_slope(*cache)


def geglu(x):
    """`geglu`, both halves of a piece while it is in the cache."""
    xp = get_array_module(x)
    half = x.shape[-1] // 2
    rows = x.reshape(-1, 2 * half)
    y, cdf = xp.empty((len(rows), half), x.dtype), xp.empty((len(rows), half), x.dtype)

    def multiply(piece):
        hidden, gate = rows[piece, :half], rows[piece, half:]
        xp.multiply(gate, _normal_cdf(gate, out=cdf[piece]), out=y[piece])
        y[piece] *= hidden

    on_all_cores(multiply, row_pieces(len(rows), half, x))
    shape = (*x.shape[:-1], half)
    return y.reshape(shape), GeluCache(x, cdf.reshape(shape))


def geglu_backward(dy, cache):
    """dy (..., D) -> dx (..., 2D)."""
    x, cdf = cache
    xp = get_array_module(x)
    half = x.shape[-1] // 2
    rows, dy, cdf = x.reshape(-1, 2 * half), dy.reshape(-1, half), cdf.reshape(-1, half)
    dx = xp.empty_like(rows)

    def differentiate(piece):
        hidden, gate = rows[piece, :half], rows[piece, half:]
        dhidden, dgate = dx[piece, :half], dx[piece, half:]
        xp.multiply(gate, cdf[piece], out=dhidden)
        dhidden *= dy[piece]
        xp.multiply(dy[piece], hidden, out=dgate)
        dgate *= _gelu_slope(gate, cdf[piece])

    on_all_cores(differentiate, row_pieces(len(rows), half, x))
    return dx.reshape(x.shape)


HARMLESS = 64.0  # exp(±64) is far from the ends of float32, and so is a sum of as many as there can be


def exp_shifted(x, out=None):
    """exp(x - s) with one s for each row, such that none overflows and no row vanishes. `out` may be x itself.

    s is the row's maximum, or 0 if no value is large: on the host, looking for that is much faster than row by row.
    """
    xp = get_array_module(x)
    if isinstance(x, np.ndarray) and x.max() <= HARMLESS and x.min() >= -HARMLESS and x.dtype != np.float16:
        return xp.exp(x, out=out)
    shifted = xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    return xp.exp(shifted, out=shifted)


def softmax(x):
    """`softmax`."""
    y = exp_shifted(x)
    y /= sum_columns(y)
    return y, SoftmaxCache(y)


def softmax_backward(dy, cache):
    """dy like x -> dx."""
    (y,) = cache
    dx = y * dy
    dx -= y * sum_columns(dx)
    return dx
