"""Activations: SiLU, GELU (exact and CLIP's quick one), GEGLU, softmax."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from minild.backend import get_array_module


def sigmoid(x):
    """σ(x) = 1 / (1 + exp(-x)), written with tanh, which cannot overflow."""
    y = get_array_module(x).tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


class SiluCache(NamedTuple):
    x: Any
    gate: Any  # σ(x): a tanh costs more than keeping it


def silu(x):
    """y = x · σ(x), element by element (Elfwing et al. 2017, arXiv 1702.03118)."""
    gate = sigmoid(x)
    return x * gate, SiluCache(x, gate)


def silu_backward(dy, cache):
    """dx = dy · σ(x) · (1 + x · (1 - σ(x)))."""
    x, gate = cache
    dx = 1 - gate
    dx *= x
    dx += 1
    dx *= gate
    dx *= dy
    return dx


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


def erf(x):
    """The error function, to 3e-7 in float32 and 1e-15 in float64. NumPy has none."""
    xp = get_array_module(x)
    largest = 6.0  # erf is 1 to the last bit of a float64 from here on
    coefficients, t_low = _erfc_polynomial(8 if x.dtype.itemsize <= 4 else 20, largest)
    z = xp.minimum(abs(x), largest)
    t = 2 / (2 + z)
    u = t * (2 / (1 - t_low))
    u -= 2 * t_low / (1 - t_low) + 1
    exponent = u * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        exponent += coefficient
        exponent *= u
    exponent += coefficients[0]
    z *= z
    exponent -= z
    erfc = xp.exp(exponent)
    erfc *= t
    return xp.copysign(1 - erfc, x)


class GeluCache(NamedTuple):
    x: Any
    cdf: Any  # Φ(x), the normal distribution function


def gelu(x):
    """y = x · Φ(x), Φ(x) = (1 + erf(x / √2)) / 2, exactly (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    cdf = erf(x * math.sqrt(0.5))
    cdf += 1
    cdf *= 0.5
    return x * cdf, GeluCache(x, cdf)


def gelu_backward(dy, cache):
    """dx = dy · (Φ(x) + x · φ(x)), φ the normal density."""
    x, cdf = cache
    dx = x * x
    dx *= -0.5
    dx = get_array_module(x).exp(dx)
    dx *= 1 / math.sqrt(2 * math.pi)
    dx *= x
    dx += cdf
    dx *= dy
    return dx


def quick_gelu(x):
    """y = x · σ(1.702 x), CLIP's approximation of GELU."""
    gate = sigmoid(x * 1.702)
    return x * gate, SiluCache(x, gate)


def quick_gelu_backward(dy, cache):
    """dx = dy · σ · (1 + 1.702 · x · (1 - σ)), σ = σ(1.702 x)."""
    x, gate = cache
    dx = 1 - gate
    dx *= x
    dx *= 1.702
    dx += 1
    dx *= gate
    dx *= dy
    return dx


class GegluCache(NamedTuple):
    hidden: Any
    gelu: GeluCache


def geglu(x):
    """(hidden, gate) = the two halves of the last axis; y = hidden · gelu(gate) (Shazeer 2020, arXiv 2002.05202).

    x (..., 2D) -> y (..., D). Raises ValueError for an odd last axis.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got shape {x.shape}")
    half = x.shape[-1] // 2
    hidden = x[..., :half]
    activated, cache = gelu(x[..., half:])
    activated *= hidden
    return activated, GegluCache(hidden, cache)


def geglu_backward(dy, cache):
    """dy (..., D) -> dx (..., 2D): dhidden = dy · gelu(gate), dgate = gelu'(gate) · (dy · hidden)."""
    hidden, gelu_cache = cache
    half = hidden.shape[-1]
    dx = get_array_module(dy).empty((*dy.shape[:-1], 2 * half), dy.dtype)
    dx[..., :half] = dy * (gelu_cache.x * gelu_cache.cdf)
    dx[..., half:] = gelu_backward(dy * hidden, gelu_cache)
    return dx


class SoftmaxCache(NamedTuple):
    y: Any


def softmax(x):
    """y_i = exp(x_i - max x) / Σ_j exp(x_j - max x) over the last axis, which must hold a finite value."""
    xp = get_array_module(x)
    y = xp.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y, SoftmaxCache(y)


def softmax_backward(dy, cache):
    """dx = y · (dy - Σ_j dy_j y_j)."""
    (y,) = cache
    dx = y * dy
    dx -= y * dx.sum(axis=-1, keepdims=True)
    return dx
