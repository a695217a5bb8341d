"""A diffusion training with the text encoder of a CLIP, which it uses and leaves as it is."""

import dataclasses

import numpy as np
import pytest

from minild import training
from minild.errors import UserError
from minild.evaluation import load_clip
from minild.models import CLIPTextModel
from minild.pipelines import load
from minild.training import clip, run, stage
from minild.training.conditioning import Frozen
from minild.training.latent_diffusion import Denoiser
from minild.training.presets import PRESETS, StagePreset
from training.small import denoiser, diffusion_objective

PRESET = dataclasses.replace(
    PRESETS["shapes"],
    autoencoder=StagePreset(learning_rate=3e-3, batch_size=4),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=4),
    channels=(8, 8, 16),
    unet_channels=(16, 16),
    pictures=16,
)


def test_a_frozen_text_encoder_has_no_gradient_and_the_unet_the_same(rng):
    """Bit for bit, of the same batch."""
    objective, whole = diffusion_objective(), denoiser()
    batch = objective.batch(rng, 4, 0.5)
    losses, cache = objective.forward(whole, batch)
    objective.backward(1.0, cache)
    expected = whole.unet.gradient_dict()
    whole.unet.zero_grad()
    whole.text_encoder.zero_grad()
    frozen = Denoiser(whole.unet, Frozen(whole.text_encoder))
    assert [name for name, _ in frozen.named_parameters()] == [f"unet.{name}" for name in expected]
    frozen_losses, cache = objective.forward(frozen, batch)
    objective.backward(1.0, cache)
    assert float(frozen_losses["loss"]) == float(losses["loss"])
    for name, gradient in whole.unet.gradient_dict().items():
        np.testing.assert_array_equal(gradient, expected[name], err_msg=name)
    assert not any(parameter.grad.any() for parameter in whole.text_encoder.parameters())


def test_a_training_with_the_text_encoder_of_a_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SHEETS", 1)
    monkeypatch.setattr(run, "SAMPLES", 2)
    monkeypatch.setattr(clip, "LAYERS", 1)
    monkeypatch.setattr(clip, "PICTURES", 64)
    monkeypatch.setattr(clip, "preset_for", lambda name: dataclasses.replace(PRESET, text_width=48, text_layers=1))
    training.train_clip("shapes", tmp_path / "clip", steps=2)
    preset = dataclasses.replace(PRESET, text_encoder=str(tmp_path / "clip"))
    training.train("shapes", tmp_path / "run", steps=3, preset=preset)
    pipeline, known = load(tmp_path / "run"), load_clip(tmp_path / "clip")
    assert pipeline.unet.config["cross_attention_dim"] == 48
    assert pipeline.tokenizer.vocabulary == known.tokenizer.vocabulary
    expected = CLIPTextModel.from_pretrained(tmp_path / "clip").state_dict()
    for name, array in pipeline.text_encoder.state_dict().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    training.train("shapes", tmp_path / "run", steps=5, preset=preset, resume=True)
    np.testing.assert_array_equal(load(tmp_path / "run").text_encoder.state_dict()[name], expected[name])


def test_a_folder_that_holds_no_clip_is_told_at_once(tmp_path):
    preset = dataclasses.replace(PRESET, text_encoder=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"none.*config\.json"):
        training.train("shapes", tmp_path / "run", steps=3, preset=preset)
    assert not (tmp_path / "run").exists()
