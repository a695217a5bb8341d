"""Conditioned: the U-Net as a model of (x, t, condition)."""

import numpy as np
from training.small import drawn

from minild.gradcheck import check_module
from minild.models import Condition, Conditioned, UNet2DConditionModel
from minild.nn.module import Module
from models.tiny import LABELLED, UNET, unet_inputs

CONFIG = LABELLED["table"][0] | {"in_channels": 5}  # three of the latents, two beside them


class Led(Module):
    """Conditioned, its condition as plain inputs for the checker."""

    def __init__(self, unet):
        self.led = Conditioned(unet)

    def forward(self, x, t, context, class_labels, channels):
        return self.led.forward(x, t, Condition(context, class_labels, channels))

    def backward(self, dy, cache):
        return self.led.backward(dy, cache)


def test_gradients(rng):
    inputs = unet_inputs(rng, 3) | {"class_labels": np.array([4, 1]), "channels": rng.standard_normal((2, 4, 6, 2))}
    model = Led(UNet2DConditionModel.from_config(CONFIG))
    check_module(model, inputs, differentiable=["x", "t", "context"], samples=1)


def test_channels_stand_after_the_latents(rng):
    unet = drawn(UNet2DConditionModel.from_config(CONFIG), "float64")
    x, t, context = unet_inputs(rng, 3).values()
    labels, channels = np.array([4, 1]), rng.standard_normal((2, 4, 6, 2))
    ours = Conditioned(unet)(x, t, Condition(context, labels, channels))
    assert ours.std() > 0.1  # the last layer of a new U-Net is zero
    np.testing.assert_array_equal(ours, unet(np.concatenate([x, channels], axis=-1), t, context, labels))


def test_no_context_is_a_token_of_zeros(rng):
    unet = drawn(UNet2DConditionModel.from_config(UNET), "float64")
    x, t, _ = unet_inputs(rng, 3).values()
    ours = Conditioned(unet)(x, t, Condition())
    assert ours.std() > 0.1
    np.testing.assert_array_equal(ours, unet(x, t, np.zeros((2, 1, 6))))
