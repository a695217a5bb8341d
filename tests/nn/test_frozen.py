"""Frozen layers: the input's gradient of the layer that is trained, and no other; nothing kept for it."""

import numpy as np
import pytest
from models.tiny import TEXT, UNET, unet_inputs

from minild.models import CLIPTextModel, UNet2DConditionModel
from minild.nn.layers import Conv2d, Linear

LAYERS = {
    "linear": (lambda: Linear(5, 3), (2, 7, 5)),
    "3 x 3": (lambda: Conv2d(3, 4), (2, 7, 6, 3)),
    "1 x 1": (lambda: Conv2d(3, 4, 1, padding=0), (2, 7, 6, 3)),
    "stride 2, odd": (lambda: Conv2d(3, 4, stride=2), (2, 7, 5, 3)),
    "stride 2, even": (lambda: Conv2d(3, 4, stride=2), (2, 8, 6, 3)),
    "stride 2, padded at the end": (lambda: Conv2d(3, 4, stride=2, padding=((0, 1), (0, 1))), (2, 8, 6, 3)),
    "stride 3, no bias": (lambda: Conv2d(3, 2, stride=3, padding=0, bias=False), (1, 10, 7, 3)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_the_inputs_gradient_is_that_of_the_layer_that_is_trained(rng, case):
    make, shape = LAYERS[case]
    layer, x = make().initialise(rng).astype("float64"), rng.standard_normal(shape)
    y, cache = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    expected = layer.backward(dy, cache)
    layer.freeze()
    frozen, cache = layer.forward(x)
    np.testing.assert_array_equal(frozen, y)
    before = dy.copy()
    np.testing.assert_allclose(layer.backward(dy, cache), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(dy, before)
    assert all(parameter.grad is None for parameter in layer.parameters())


def arrays_in(cache):
    """How many bytes of arrays a cache holds."""
    if hasattr(cache, "nbytes"):
        return cache.nbytes
    return sum(map(arrays_in, cache)) if isinstance(cache, (tuple, list)) else 0


def test_a_frozen_unet_has_the_same_gradients_and_keeps_less(rng):
    unet = UNet2DConditionModel.from_config(UNET)
    for parameter in unet.parameters():
        parameter.data = rng.standard_normal(parameter.shape) / np.sqrt(max(1, np.prod(parameter.shape[:-1])))
    inputs = unet_inputs(rng, 3)
    y, cache = unet.forward(**inputs)
    dy, kept = rng.standard_normal(y.shape), arrays_in(cache)
    expected = unet.backward(dy, cache)
    unet.freeze()
    frozen, cache = unet.forward(**inputs)
    np.testing.assert_array_equal(frozen, y)
    assert arrays_in(cache) < 0.7 * kept
    for ours, theirs in zip(unet.backward(dy, cache), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_a_frozen_text_encoder_takes_no_gradient(rng):
    model = CLIPTextModel.from_config(TEXT).freeze()
    y, cache = model.forward(rng.integers(11, size=(2, 7)))
    model.backward(rng.standard_normal(y.shape).astype("f"), cache)
    assert all(parameter.grad is None for parameter in model.parameters())
