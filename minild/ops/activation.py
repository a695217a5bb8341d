"""Activations: ReLU and its leaky form, SiLU, GELU (exact and CLIP's quick one), GEGLU, softmax."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from minild.backend import get_array_module


def sigmoid(x):
    """σ(x) = 1 / (1 + exp(-x)), written as (1 + tanh(x / 2)) / 2, which cannot overflow."""
    return (1 + get_array_module(x).tanh(x / 2)) / 2


class ReluCache(NamedTuple):
    positive: Any  # booleans like x


def relu(x):
    """y = max(x, 0), element by element (Nair & Hinton 2010)."""
    positive = x > 0
    return x * positive, ReluCache(positive)


def relu_backward(dy, cache):
    """dx = dy where x > 0, else 0; at the kink, x = 0, it counts as 0."""
    return dy * cache.positive


class LeakyReluCache(NamedTuple):
    slope: Any  # like x: 1, or `negative_slope`


def leaky_relu(x, negative_slope=0.2):
    """y = x where x > 0, else negative_slope · x (Maas et al. 2013)."""
    slope = get_array_module(x).where(x > 0, x.dtype.type(1), x.dtype.type(negative_slope))
    return x * slope, LeakyReluCache(slope)


def leaky_relu_backward(dy, cache):
    """dx = dy where x > 0, else negative_slope · dy."""
    return dy * cache.slope


class SiluCache(NamedTuple):
    x: Any


def silu(x):
    """y = x · σ(x), element by element (Elfwing et al. 2017, arXiv 1702.03118)."""
    return x * sigmoid(x), SiluCache(x)


def silu_backward(dy, cache):
    """dx = dy · σ(x) · (1 + x · (1 - σ(x)))."""
    (x,) = cache
    gate = sigmoid(x)
    return dy * gate * (1 + x * (1 - gate))


QUICK = 1.702  # σ(1.702 x) is within 0.01 of the normal distribution function


class QuickGeluCache(NamedTuple):
    x: Any


def quick_gelu(x):
    """y = x · σ(1.702 x), CLIP's approximation of GELU."""
    return x * sigmoid(QUICK * x), QuickGeluCache(x)


def quick_gelu_backward(dy, cache):
    """dx = dy · σ · (1 + 1.702 · x · (1 - σ)), σ = σ(1.702 x)."""
    (x,) = cache
    gate = sigmoid(QUICK * x)
    return dy * gate * (1 + QUICK * x * (1 - gate))


LARGEST = 6.0  # erf is 1 to the last bit of a float64 from here on


@functools.cache
def erfc_polynomial(degree):
    """Coefficients, highest first, of P in erfc(z) = t · exp(P(u) - z²), 0 <= z <= LARGEST.

    t = 2 / (2 + z) maps the half line to (0, 1], where log(erfc(z) / t) + z² is so smooth that a polynomial in u, t
    stretched to [-1, 1], reaches machine precision (as in Numerical Recipes, 6.2.2). Fitted to math.erfc.
    """

    def smooth_part(u):
        t = t_of(u)
        z = 2 / t - 2
        return np.array([math.log(math.erfc(zi) / ti) + zi * zi for zi, ti in zip(z, t)])

    return chebyshev.cheb2poly(chebyshev.chebinterpolate(smooth_part, degree)).tolist()[::-1]


T_LOW = 2 / (2 + LARGEST)


def t_of(u):
    """t in [T_LOW, 1] of u in [-1, 1]."""
    return T_LOW + (1 - T_LOW) * (u + 1) / 2


def erf(x):
    """The error function, to 3e-7 in float32 and 1e-15 in float64. NumPy has none."""
    xp = get_array_module(x)
    z = xp.minimum(abs(x), LARGEST)
    t = 2 / (2 + z)
    u = (t - T_LOW) * (2 / (1 - T_LOW)) - 1
    polynomial = 0 * u
    for coefficient in erfc_polynomial(8 if x.dtype.itemsize <= 4 else 20):  # Horner's scheme
        polynomial = polynomial * u + coefficient
    return xp.copysign(1 - t * xp.exp(polynomial - z * z), x)


def normal_cdf(x):
    """Φ(x) = (1 + erf(x / √2)) / 2, the normal distribution function."""
    return (1 + erf(x * math.sqrt(0.5))) / 2


def normal_density(x):
    """φ(x) = exp(-x² / 2) / √(2π), the slope of Φ."""
    return get_array_module(x).exp(-x * x / 2) / math.sqrt(2 * math.pi)


class GeluCache(NamedTuple):
    x: Any
    cdf: Any  # Φ(x): the error function costs more than keeping it


def gelu(x):
    """y = x · Φ(x), Φ(x) = (1 + erf(x / √2)) / 2, exactly (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    cdf = normal_cdf(x)
    return x * cdf, GeluCache(x, cdf)


def gelu_backward(dy, cache):
    """dx = dy · (Φ(x) + x · φ(x)), φ the normal density."""
    x, cdf = cache
    return dy * (cdf + x * normal_density(x))


class GegluCache(NamedTuple):
    hidden: Any
    gated: Any  # gelu(gate), what hidden was multiplied by
    gelu: Any


def require_geglu(x):
    """ValueError unless the last axis of `x` has two halves."""
    if x.shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got shape {x.shape}")


def geglu(x, gelu=gelu):
    """(hidden, gate) = the two halves of the last axis; y = hidden · gelu(gate) (Shazeer 2020, arXiv 2002.05202).

    x (..., 2D) -> y (..., D). Raises ValueError for an odd last axis.
    """
    require_geglu(x)
    D = x.shape[-1] // 2
    hidden = x[..., :D]
    gated, gelu_cache = gelu(x[..., D:])
    return hidden * gated, GegluCache(hidden, gated, gelu_cache)


def geglu_backward(dy, cache, gelu_backward=gelu_backward):
    """dy (..., D) -> dx (..., 2D): dhidden = dy · gelu(gate), dgate = gelu'(gate) · (dy · hidden)."""
    dhidden = dy * cache.gated
    dgate = gelu_backward(dy * cache.hidden, cache.gelu)
    return get_array_module(dy).concatenate([dhidden, dgate], axis=-1)


class SoftmaxCache(NamedTuple):
    y: Any


def softmax(x):
    """y_i = exp(x_i - max x) / Σ_j exp(x_j - max x) over the last axis.

    Each row needs at least one finite value, and no +inf or NaN."""
    exponentials = get_array_module(x).exp(x - x.max(axis=-1, keepdims=True))
    y = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return y, SoftmaxCache(y)


def softmax_backward(dy, cache):
    """dx = y · (dy - Σ_j dy_j y_j)."""
    (y,) = cache
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
