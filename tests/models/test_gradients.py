"""The gradient checker on whole models at tiny configs: every parameter, every input."""

import numpy as np
import pytest

from minild.diffusion.loss import epsilon_loss, epsilon_loss_backward
from minild.diffusion.schedule import NoiseSchedule
from minild.gradcheck import check, check_module
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from minild.models.autoencoder_kl import DiagonalGaussian, reparameterize, reparameterize_backward
from minild.nn.module import Module
from models.tiny import (
    AUTOENCODER,
    LABELLED,
    PROJECTED,
    TEXT,
    THREE_LEVELS,
    UNET,
    UNET_2,
    autoencoder_inputs,
    labels,
    unet_inputs,
)


@pytest.mark.parametrize(
    ("config", "size", "samples"),
    [
        (UNET, (4, 6), 3),
        (UNET_2, (4, 6), 1),
        (UNET, (5, 3), 1),
        (THREE_LEVELS, (7, 2), 1),
        (UNET | {"only_cross_attention": True}, (3, 2), 1),
    ],
)
def test_unet(rng, config, size, samples):
    model = UNet2DConditionModel.from_config(config)
    check_module(model, unet_inputs(rng, config["in_channels"], size), samples=samples)


@pytest.mark.parametrize("case", LABELLED)
def test_unet_of_class_labels(rng, case):
    config, shape = LABELLED[case]
    inputs = unet_inputs(rng, config["in_channels"]) | {"class_labels": labels(rng, shape)}
    check_module(UNet2DConditionModel.from_config(config), inputs, samples=1)


@pytest.mark.parametrize("case", PROJECTED)
def test_unet_that_projects_its_context(rng, case):
    config, shape = PROJECTED[case]
    inputs = unet_inputs(rng, 3) | {"context": rng.standard_normal(shape)}
    check_module(UNet2DConditionModel.from_config(config), inputs, samples=1)


class WholeAutoencoder(Module):
    """AutoencoderKL with its posterior as plain outputs, for the checker."""

    def __init__(self, model):
        self.model = model

    def forward(self, x, noise):
        (y, posterior), cache = self.model.forward(x, noise)
        return (y, posterior.mean, posterior.logvar), cache

    def backward(self, dy, cache):
        return self.model.backward((dy[0], dy[1:]), cache)


@pytest.mark.parametrize("fields", [{}, {"use_quant_conv": False}, {"use_post_quant_conv": False}])
def test_autoencoder(rng, fields):
    model = WholeAutoencoder(AutoencoderKL.from_config(AUTOENCODER | fields))
    check_module(model, autoencoder_inputs(rng), differentiable=["x"], samples=5)


@pytest.mark.parametrize("bias", [-100, 100])
def test_a_clipped_logvar_gets_no_gradient(rng, bias):
    model = WholeAutoencoder(AutoencoderKL.from_config(AUTOENCODER).astype("float64"))
    model.model.quant_conv.bias.data[3] = bias  # the second channel's logvar
    inputs = autoencoder_inputs(rng) | {"noise": 1e-3 * rng.standard_normal((2, 3, 2, 2))}
    (_, _, logvar), cache = model.forward(**inputs)
    assert (logvar[..., 1] == np.clip(bias, -30, 20)).all() and (abs(logvar[..., 0]) < 5).all()
    check(model.forward, model.backward, inputs, differentiable=["x"], samples=40)
    model.zero_grad()
    model.backward((np.zeros((2, 6, 4, 3)), np.zeros_like(logvar), np.ones_like(logvar)), cache)
    np.testing.assert_allclose(model.model.quant_conv.bias.grad, [0, 0, logvar[..., 0].size, 0])


def test_reparameterization(rng):
    noise = rng.standard_normal((2, 3, 2, 2))

    def op(mean, logvar):
        return reparameterize(DiagonalGaussian(mean, logvar), noise)

    mean, logvar = rng.standard_normal((2, *noise.shape))
    check(op, reparameterize_backward, {"mean": mean, "logvar": logvar})
    np.testing.assert_allclose(op(mean, logvar)[0], mean + np.sqrt(np.exp(logvar)) * noise)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_text_encoder(rng, activation):
    model = CLIPTextModel.from_config(TEXT | {"hidden_act": activation})
    token_ids = rng.integers(0, 11, (2, 5))
    token_ids[:, -2:] = 9  # a token several times, as the padding is
    check_module(model, {"token_ids": token_ids}, samples=10)


class EpsilonLoss(Module):
    """The training loss as a Module of the U-Net's parameters and the context, for the checker."""

    def __init__(self, unet):
        self.unet = unet

    def forward(self, z, noise, t, context):
        return epsilon_loss(self.unet, z, noise, t, NoiseSchedule().noise_levels(t), context)

    def backward(self, dy, cache):
        return epsilon_loss_backward(dy, cache)


def test_epsilon_loss(rng):
    z, noise = rng.standard_normal((2, 2, 4, 6, 3))
    inputs = {"z": z, "noise": noise, "t": np.array([37, 612]), "context": rng.standard_normal((2, 5, 6))}
    check_module(EpsilonLoss(UNet2DConditionModel.from_config(UNET)), inputs, differentiable=["context"], samples=2)
