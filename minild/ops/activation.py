"""Activations: SiLU, GELU (exact and CLIP's quick one), GEGLU, softmax."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from minild.backend import get_array_module, on_all_cores, pieces, workspace
from minild.ops import kernels
from minild.ops.kernels import activation as activation_kernels
from minild.ops.reduce import sum_columns


def gate(half, out, sharpness=1.0):
    """x · σ(sharpness · x) = h + h · tanh(sharpness · h) of h = x / 2, written to `out`: tanh cannot overflow."""
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


class GatedCache(NamedTuple):
    x: Any  # the gate σ is computed again: that takes as long as fetching it from memory


def _gated(x, sharpness):
    """y = x · σ(sharpness · x)."""
    if kernels.serve(x):
        return activation_kernels.gated(x, sharpness)
    xp = get_array_module(x)
    rows = x.reshape(-1, x.shape[-1])
    y = xp.empty_like(rows)

    def multiply(part):
        half = xp.multiply(rows[part], 0.5, out=workspace("half", rows[part].shape, x))
        gate(half, y[part], sharpness)

    on_all_cores(multiply, pieces(*rows.shape, x))
    return y.reshape(x.shape), GatedCache(x)


def _gated_backward(dy, cache, sharpness):
    """dx = dy · σ · (1 + sharpness · x · (1 - σ))."""
    if kernels.serve(cache.x):
        return activation_kernels.gated_backward(dy, cache, sharpness)
    (x,) = cache
    xp = get_array_module(x)
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, x.shape[-1])
    dx = xp.empty_like(rows)

    def differentiate(part):
        half = xp.multiply(rows[part], 0.5, out=workspace("half", rows[part].shape, x))
        slope = twice_gate_slope(half, dx[part], sharpness)
        slope *= 0.5
        slope *= drows[part]

    on_all_cores(differentiate, pieces(*rows.shape, x))
    return dx.reshape(x.shape)


def silu(x):
    """y = x · σ(x), element by element (Elfwing et al. 2017, arXiv 1702.03118)."""
    return _gated(x, 1.0)


def silu_backward(dy, cache):
    """dx = dy · σ(x) · (1 + x · (1 - σ(x)))."""
    return _gated_backward(dy, cache, 1.0)


@functools.cache
def _erfc_polynomial(degree, largest):
    """Coefficients, lowest first, of P in erfc(z) = t · exp(P(u) - z²), 0 <= z <= largest.

    t = 2 / (2 + z) maps the half line to (0, 1], where log(erfc(z) / t) + z² is so smooth that a polynomial in u, t
    stretched to [-1, 1], reaches machine precision (as in Numerical Recipes, 6.2.2). Fitted to math.erfc.
    """
    t_low = 2 / (2 + largest)

    def smooth_part(u):
        t = t_low + (1 - t_low) * (u + 1) / 2
        z = 2 / t - 2
        return np.array([math.log(math.erfc(zi) / ti) + zi * zi for zi, ti in zip(z, t)])

    return chebyshev.cheb2poly(chebyshev.chebinterpolate(smooth_part, degree)).tolist(), t_low


def erf(x, out=None):
    """The error function, to 3e-7 in float32 and 1e-15 in float64. NumPy has none."""
    xp = get_array_module(x)
    largest = 6.0  # erf is 1 to the last bit of a float64 from here on
    coefficients, t_low = _erfc_polynomial(8 if x.dtype.itemsize <= 4 else 20, largest)
    z = xp.abs(x, out=workspace("erf z", x.shape, x))
    xp.minimum(z, largest, out=z)
    t = xp.add(z, 2, out=workspace("erf t", x.shape, x))
    xp.divide(2, t, out=t)
    u = xp.multiply(t, 2 / (1 - t_low), out=workspace("erf u", x.shape, x))
    u -= 2 * t_low / (1 - t_low) + 1
    exponent = xp.multiply(u, coefficients[-1], out=workspace("erf exponent", x.shape, x))
    for coefficient in coefficients[-2:0:-1]:
        exponent += coefficient
        exponent *= u
    exponent += coefficients[0]
    z *= z
    exponent -= z
    erfc = xp.exp(exponent, out=exponent)
    erfc *= t
    return xp.copysign(xp.subtract(1, erfc, out=erfc), x, out=out)


def _normal_cdf(x, out=None):
    """Φ(x) = (1 + erf(x / √2)) / 2, the normal distribution function."""
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


class GeluCache(NamedTuple):
    x: Any
    cdf: Any  # Φ(x)


def gelu(x):
    """y = x · Φ(x), Φ(x) = (1 + erf(x / √2)) / 2, exactly (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    if kernels.serve(x):
        return activation_kernels.gelu(x)
    cdf = _normal_cdf(x)
    return x * cdf, GeluCache(x, cdf)


def gelu_backward(dy, cache):
    """dx = dy · (Φ(x) + x · φ(x)), φ the normal density."""
    if kernels.serve(cache.x):
        return activation_kernels.gelu_backward(dy, cache)
    return dy * _gelu_slope(*cache)


def quick_gelu(x):
    """y = x · σ(1.702 x), CLIP's approximation of GELU."""
    return _gated(x, 1.702)


def quick_gelu_backward(dy, cache):
    """dx = dy · σ · (1 + 1.702 · x · (1 - σ)), σ = σ(1.702 x)."""
    return _gated_backward(dy, cache, 1.702)


class GegluCache(NamedTuple):
    x: Any
    cdf: Any  # Φ(gate): the error function costs more than keeping it


def geglu(x):
    """(hidden, gate) = the two halves of the last axis; y = hidden · gelu(gate) (Shazeer 2020, arXiv 2002.05202).

    x (..., 2D) -> y (..., D). Raises ValueError for an odd last axis.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got shape {x.shape}")
    if kernels.serve(x):
        return activation_kernels.geglu(x)
    xp = get_array_module(x)
    half = x.shape[-1] // 2
    rows = x.reshape(-1, 2 * half)
    y, cdf = xp.empty((len(rows), half), x.dtype), xp.empty((len(rows), half), x.dtype)

    def multiply(part):
        hidden, gate = rows[part, :half], rows[part, half:]
        xp.multiply(gate, _normal_cdf(gate, out=cdf[part]), out=y[part])
        y[part] *= hidden

    on_all_cores(multiply, pieces(len(rows), half, x))
    shape = (*x.shape[:-1], half)
    return y.reshape(shape), GegluCache(x, cdf.reshape(shape))


def geglu_backward(dy, cache):
    """dy (..., D) -> dx (..., 2D): dhidden = dy · gelu(gate), dgate = gelu'(gate) · (dy · hidden)."""
    if kernels.serve(cache.x):
        return activation_kernels.geglu_backward(dy, cache)
    x, cdf = cache
    xp = get_array_module(x)
    half = x.shape[-1] // 2
    rows, dy, cdf = x.reshape(-1, 2 * half), dy.reshape(-1, half), cdf.reshape(-1, half)
    dx = xp.empty_like(rows)

    def differentiate(part):
        hidden, gate = rows[part, :half], rows[part, half:]
        dhidden, dgate = dx[part, :half], dx[part, half:]
        xp.multiply(gate, cdf[part], out=dhidden)
        dhidden *= dy[part]
        xp.multiply(dy[part], hidden, out=dgate)
        dgate *= _gelu_slope(gate, cdf[part])

    on_all_cores(differentiate, pieces(len(rows), half, x))
    return dx.reshape(x.shape)


class SoftmaxCache(NamedTuple):
    y: Any


def softmax(x):
    """y_i = exp(x_i - max x) / Σ_j exp(x_j - max x) over the last axis, which must hold a finite value."""
    y = exp_shifted(x)
    y /= sum_columns(y)
    return y, SoftmaxCache(y)


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


def softmax_backward(dy, cache):
    """dx = y · (dy - Σ_j dy_j y_j)."""
    (y,) = cache
    dx = y * dy
    dx -= y * sum_columns(dx)
    return dx
