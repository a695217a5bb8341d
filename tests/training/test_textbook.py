"""A whole training step of the shapes, by the textbook's ops and by the fast ones: the same gradients."""

import numpy as np
import pytest

from minild import using
from minild.diffusion import NoiseSchedule
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from minild.training import AutoencoderObjective, Denoiser, DiffusionObjective, Replicas
from minild.training.autoencoder import prepare
from minild.training.flat import flatten
from minild.training.presets import SHAPES


def autoencoder():
    model = AutoencoderKL.from_config(SHAPES.autoencoder_config(32), 0)
    prepare(model)
    pictures = np.random.default_rng(5).integers(0, 256, (16, 32, 32, 3), np.uint8)
    return model, AutoencoderObjective(pictures, (8, 8, 4)), 8


class Vocabulary:
    """What a text encoder's config asks of a tokenizer."""

    max_length, bos_token_id, eos_token_id = 16, 98, 99

    def __len__(self):
        return 100


def diffusion():
    unet = UNet2DConditionModel.from_config(SHAPES.unet_config(32), 1)
    rng = np.random.default_rng(6)
    last = unet.conv_out.weight
    last.data = 0.05 * rng.standard_normal(last.shape, np.float32)  # its zeros would hide all other gradients
    text_encoder = CLIPTextModel.from_config(SHAPES.text_config(Vocabulary()), 2)
    means, deviations = rng.standard_normal((2, 80, 8, 8, 4), np.float32)
    ids = rng.integers(0, 100, (80, 2, 16))
    objective = DiffusionObjective(means, abs(deviations) / 5, 1.0, ids, ids[0, 0], NoiseSchedule())
    return Denoiser(unet, text_encoder), objective, 64


@pytest.mark.parametrize("make", [autoencoder, diffusion])
def test_a_training_step_has_the_same_gradients(make):
    model, objective, size = make()
    # Not any seed: where a pixel is rebuilt to within rounding, its absolute error may have either sign.
    batch = objective.batch(np.random.default_rng(1), size, 0.5)
    gradients, losses = [], []
    with Replicas(model, objective, 2) as replicas:
        for words in ((), ("textbook",)):
            with using(*words):
                gradient = flatten(model, "grad").gather()
                gradient.fill(0)
                losses.append(float(replicas.gradient(batch)["loss"]))
                gradients.append(gradient.copy())
    fast, plain = gradients
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert np.abs(plain).max() > 1e-3 and not np.array_equal(fast, plain)
    assert np.abs(fast - plain).max() < 1e-4 * np.abs(plain).max()
