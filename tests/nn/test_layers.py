"""minild.nn.layers: every layer's backward, and the layouts of its weights."""

import numpy as np
import pytest

from minild.gradcheck import check_module
from minild.nn.layers import (
    ACTIVATIONS,
    GEGLU,
    UPSAMPLE,
    Conv2d,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 3, 2, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_gradient(rng, shape, bias):
    check_module(Linear(5, 4, bias), {"x": rng.standard_normal(shape)})


@pytest.mark.parametrize(("kernel", "stride", "padding"), [
    (3, 1, 1), (1, 1, 0), (3, 2, 1), (3, 2, ((0, 1), (0, 1))), (4, 2, 1), (4, 1, 1),
])
def test_conv2d_gradient(rng, kernel, stride, padding):
    check_module(Conv2d(3, 4, kernel, stride, padding), {"x": rng.standard_normal((2, 7, 5, 3))}, samples=60)


@pytest.mark.parametrize("layer", [GroupNorm(2, 6, 1e-5), GroupNorm(3, 6, 0.3), LayerNorm(6), LayerNorm(6, 0.3)])
def test_norm_gradient(rng, layer):
    check_module(layer, {"x": 1 + 2 * rng.standard_normal((2, 5, 3, 6))}, samples=60)


def test_embedding_gradient(rng):
    check_module(Embedding(7, 4), {"ids": rng.integers(0, 7, (3, 5))})  # fifteen places: some tokens come twice


@pytest.mark.parametrize("layer", [*ACTIVATIONS.values(), GEGLU], ids=[*ACTIVATIONS, "geglu"])
def test_activation_gradient(rng, layer):
    check_module(layer, {"x": 2 * rng.standard_normal((2, 3, 5, 6))})


def test_upsample_gradient(rng):
    check_module(UPSAMPLE, {"x": rng.standard_normal((2, 3, 5, 4))})


def test_the_bias_is_the_last_thing_added(rng):
    x = rng.standard_normal((2, 4, 3, 5), dtype="f")
    for layer in (Linear(5, 6), Conv2d(5, 6)):
        layer.initialise(rng)
        without = layer(x)
        layer.bias.data = np.arange(6, dtype="f")
        np.testing.assert_allclose(layer(x) - without, np.broadcast_to(np.arange(6), without.shape), atol=1e-5)


@pytest.mark.parametrize(("layer", "bound"), [(Linear(100, 64), 0.1), (Conv2d(4, 64), 1 / 6)])
def test_weights_are_drawn_uniformly_within_the_root_of_the_fan_in(rng, layer, bound):
    weight = layer.initialise(rng).weight.data
    assert weight.dtype == np.float32
    assert 0.99 * bound < weight.max() <= bound and -bound <= weight.min() < -0.99 * bound
    assert abs(weight.std() - bound / np.sqrt(3)) < 0.05 * bound
    assert not layer.bias.data.any()
