"""minild.ops.norm: gradients, values, refusals."""

import numpy as np
import pytest

from minild.backend import to_device
from minild.gradcheck import check
from minild.ops.activation import silu, silu_backward
from minild.ops.norm import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    group_norm_silu,
    group_norm_silu_backward,
    layer_norm,
    layer_norm_backward,
    unit_norm,
    unit_norm_backward,
)


def affine_inputs(rng, shape):
    x = 1.5 + 2 * rng.standard_normal(shape)
    return {"x": x, "gamma": rng.standard_normal(shape[-1]), "beta": rng.standard_normal(shape[-1])}


@pytest.mark.parametrize(("shape", "groups"), [((2, 5, 3, 6), 2), ((2, 5, 3, 6), 6), ((3, 4, 3, 4), 1), ((2, 7, 6), 3)])
def test_group_norm_gradient(device, rng, shape, groups):
    check(group_norm, group_norm_backward, affine_inputs(rng, shape), groups=groups, device=device)


@pytest.mark.parametrize(("shape", "groups"), [((2, 5, 3, 6), 2), ((3, 4, 3, 4), 4)])
def test_group_norm_silu_gradient(device, rng, shape, groups):
    check(group_norm_silu, group_norm_silu_backward, affine_inputs(rng, shape), groups=groups, device=device)


def test_group_norm_silu_is_group_norm_and_then_silu(on_device, rng):
    inputs, dy = affine_inputs(rng, (2, 5, 3, 6)).values(), rng.standard_normal((2, 5, 3, 6))
    normed, norm = group_norm(*inputs, 3, eps=0.1)
    y, act = silu(normed)
    np.testing.assert_allclose(on_device(group_norm_silu, *inputs, 3, eps=0.1), y, atol=1e-12)
    expected = group_norm_backward(silu_backward(dy, act), norm)
    got = group_norm_silu_backward(dy, group_norm_silu(*inputs, 3, eps=0.1)[1])
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 5)])
def test_layer_norm_gradient(device, rng, shape):
    check(layer_norm, layer_norm_backward, affine_inputs(rng, shape), device=device)


def test_eps_enters_the_gradient(device, rng):
    check(group_norm, group_norm_backward, affine_inputs(rng, (2, 3, 2, 4)), groups=2, eps=0.7, device=device)
    check(layer_norm, layer_norm_backward, affine_inputs(rng, (2, 3, 4)), eps=0.7, device=device)


def test_group_norm_value(on_device, rng):
    x, gamma, beta = affine_inputs(rng, (2, 5, 3, 6)).values()
    expected = np.empty_like(x)
    for n in range(2):
        for g in range(3):
            channels = slice(2 * g, 2 * g + 2)
            group = x[n, :, :, channels]
            normal = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
            expected[n, :, :, channels] = gamma[channels] * normal + beta[channels]
    np.testing.assert_allclose(on_device(group_norm, x, gamma, beta, 3), expected, atol=1e-12)


def test_layer_norm_value(on_device, rng):
    x, gamma, beta = affine_inputs(rng, (2, 3, 7)).values()
    expected = np.array([[gamma * (row - row.mean()) / np.sqrt(row.var() + 1e-5) + beta for row in rows] for rows in x])
    np.testing.assert_allclose(on_device(layer_norm, x, gamma, beta), expected, atol=1e-12)


@pytest.mark.parametrize("offset", [0, 30])
def test_group_norm_backward_in_float32_with_a_large_mean(rng, offset):
    """The mean is taken off before anything is squared: float32 stays near float64, far from zero too."""
    inputs = affine_inputs(rng, (2, 16, 12, 8))
    inputs["x"] += offset
    dy = rng.standard_normal((2, 16, 12, 8))
    exact = group_norm_backward(dy, group_norm(*inputs.values(), 2)[1])
    single = [x.astype("f") for x in inputs.values()]
    y, cache = group_norm(*single, 2)
    rounded = group_norm_backward(dy.astype("f"), cache)
    np.testing.assert_allclose(y, group_norm(*inputs.values(), 2)[0], atol=2e-5)
    for a, b in zip(exact, rounded):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize(("name", "shapes", "groups"), [
    ("groups", ((2, 3, 3, 6), (6,), (6,)), 4),
    ("gamma", ((2, 3, 3, 6), (3,), (6,)), 3),
    ("beta", ((2, 3, 3, 6), (6,), (1,)), 3),
])
def test_group_norm_names_a_wrong_argument(name, shapes, groups):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        group_norm(*map(np.ones, shapes), groups)


@pytest.mark.parametrize(("name", "shapes"), [("gamma", ((2, 6), (2,), (6,))), ("beta", ((2, 6), (6,), (1,)))])
def test_layer_norm_names_a_wrong_argument(name, shapes):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        layer_norm(*map(np.ones, shapes))


def test_wrong_dtype_is_named():
    for op, settings in ((group_norm, (2,)), (layer_norm, ())):
        with pytest.raises(ValueError, match=r"^gamma: expected dtype"):
            op(np.ones((2, 3, 4)), np.ones(4, "f"), np.ones(4), *settings)


@pytest.mark.parametrize("shape", [(3, 5, 2, 4), (6, 3)])
def test_batch_norm_gradient(device, rng, shape):
    inputs = affine_inputs(rng, shape)
    check(batch_norm, batch_norm_backward, inputs, device=device)
    check(batch_norm, batch_norm_backward, inputs, eps=0.7, device=device)


def test_batch_norm_gradient_with_given_statistics(device, rng):
    mean, variance = to_device(rng.standard_normal(4), device), to_device(0.5 + rng.random(4), device)
    inputs = affine_inputs(rng, (3, 5, 2, 4))
    check(batch_norm, batch_norm_backward, inputs, mean=mean, variance=variance, device=device)


def test_batch_norm_value(on_device, rng):
    x, gamma, beta = affine_inputs(rng, (2, 5, 3, 6)).values()
    expected, given = np.empty_like(x), np.empty_like(x)
    mean, variance = rng.standard_normal(6), 0.5 + rng.random(6)
    for c in range(6):
        channel = x[..., c]
        expected[..., c] = gamma[c] * (channel - channel.mean()) / np.sqrt(channel.var() + 0.1) + beta[c]
        given[..., c] = gamma[c] * (channel - mean[c]) / np.sqrt(variance[c] + 0.1) + beta[c]
    np.testing.assert_allclose(on_device(batch_norm, x, gamma, beta, eps=0.1), expected, atol=1e-12)
    np.testing.assert_allclose(on_device(batch_norm, x, gamma, beta, mean, variance, 0.1), given, atol=1e-12)


def test_batch_norm_takes_both_statistics_or_neither():
    x, ones = np.ones((2, 3)), np.ones(3)
    with pytest.raises(ValueError, match=r"^mean and variance: expected both, or neither"):
        batch_norm(x, ones, ones, mean=ones)
    with pytest.raises(ValueError, match=r"^variance: expected shape \(3,\), got \(2,\)"):
        batch_norm(x, ones, ones, ones, np.ones(2))


@pytest.mark.parametrize("eps", [1e-10, 0.3])
def test_unit_norm_gradient(device, rng, eps):
    check(unit_norm, unit_norm_backward, {"x": rng.standard_normal((2, 3, 4, 5))}, eps=eps, device=device)


def test_unit_norm_value_and_nothing_at_zero(on_device, rng):
    x = rng.standard_normal((3, 4))
    x[1] = 0
    expected = np.array([row / max(np.sqrt((row**2).sum()), 1e-300) for row in x])
    np.testing.assert_allclose(on_device(unit_norm, x), expected, atol=1e-9)
    dx = unit_norm_backward(np.ones((3, 4)), unit_norm(x, eps=0.5)[1])
    np.testing.assert_allclose(dx[1], 2)  # 1 / eps, and no NaN
