"""minild.ops.activation: gradients and values."""

import math

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops import activation
from minild.ops.activation import erf, geglu, gelu, leaky_relu, quick_gelu, relu, silu, softmax

OPS = ["relu", "leaky_relu", "silu", "gelu", "quick_gelu", "geglu", "softmax"]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 5, 4)])
def test_gradient(device, rng, name, shape):
    backward = getattr(activation, f"{name}_backward")
    check(getattr(activation, name), backward, {"x": 2 * rng.standard_normal(shape)}, device=device)


def elementwise(function, x):
    return np.array([function(value) for value in x.ravel()]).reshape(x.shape)


def normal_cdf(value):
    return math.erfc(-value / math.sqrt(2)) / 2


X = np.concatenate([np.linspace(-7, 7, 41), [0.0, 1e-3, -1e-3]]).reshape(4, 11)


@pytest.mark.parametrize(("op", "formula"), [
    (relu, lambda v: max(v, 0)),
    (leaky_relu, lambda v: max(v, 0.2 * v)),
    (silu, lambda v: v / (1 + math.exp(-v))),
    (quick_gelu, lambda v: v / (1 + math.exp(-1.702 * v))),
    (gelu, lambda v: v * normal_cdf(v)),
])
def test_elementwise_value(on_device, op, formula):
    np.testing.assert_allclose(on_device(op, X), elementwise(formula, X), atol=2e-14)
    y = on_device(op, X.astype("f"))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, elementwise(formula, X), atol=3e-6)


def test_leaky_relu_with_another_slope(on_device):
    np.testing.assert_allclose(on_device(leaky_relu, X, negative_slope=0.01), elementwise(lambda v: max(v, v / 100), X))


def test_erf(rng):
    x = np.linspace(-8, 8, 1001)
    np.testing.assert_allclose(erf(x), elementwise(math.erf, x), atol=3e-15)
    np.testing.assert_allclose(erf(x.astype("f")), elementwise(math.erf, x), atol=4e-7)


def test_geglu_value(on_device, rng):
    x = rng.standard_normal((2, 3, 8))
    expected = x[..., :4] * elementwise(lambda v: v * normal_cdf(v), x[..., 4:])
    np.testing.assert_allclose(on_device(geglu, x), expected, atol=1e-14)
    with pytest.raises(ValueError, match=r"^x: expected an even last axis"):
        geglu(np.ones((2, 5)))


def test_softmax_value(on_device, rng):
    x = rng.standard_normal((2, 3, 5))
    expected = np.array([[[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in rows] for rows in x])
    np.testing.assert_allclose(on_device(softmax, x), expected, rtol=1e-13)


@pytest.mark.parametrize("op", [silu, gelu, quick_gelu])
def test_far_out_is_finite(on_device, op):
    y = on_device(op, np.array([-1e4, 1e4], "f"))
    np.testing.assert_allclose(y, [0, 1e4], atol=1e-6)


def test_softmax_of_large_and_masked_scores(on_device):
    x = np.array([[1e4, 1e4, -np.inf], [-1e4, 0, -np.inf]], "f")
    np.testing.assert_allclose(on_device(softmax, x), [[0.5, 0.5, 0], [0, 1, 0]])
