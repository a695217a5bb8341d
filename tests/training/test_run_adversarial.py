"""A whole training whose first stage has the perceptual and the adversarial loss."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from minild import training
from minild.errors import UserError
from minild.pipelines import load
from minild.training import run, stage
from minild.training.presets import PRESETS, StagePreset

PRESET = dataclasses.replace(
    PRESETS["shapes"],
    autoencoder=StagePreset(learning_rate=3e-3, batch_size=8),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=8),
    channels=(8, 8, 16),
    unet_channels=(16, 16),
    text_width=32,
    text_layers=1,
    pictures=64,
)
BOTH = {"perceptual_weight": 0.5, "adversarial_weight": 0.5, "adversarial_start": 0.0, "discriminator_width": 4}


def test_both_losses_train_the_autoencoder_that_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SAMPLES", 1)
    monkeypatch.setattr(stage, "SHEETS", 1)
    metrics = {}
    for name, settings in {"plain": {}, "both": BOTH}.items():
        preset = dataclasses.replace(PRESET, **settings)
        training.train("shapes", tmp_path / name, steps=12, seed=4, preset=preset)
        lines = (tmp_path / name / "training" / "metrics.jsonl").read_text().splitlines()
        metrics[name] = json.loads(lines[0])
        assert metrics[name]["stage"] == "autoencoder"
    added = metrics["both"].keys() - metrics["plain"].keys()
    assert added == {"perceptual", "discriminator", "real", "generated"}
    assert metrics["both"]["perceptual"] > 0 and metrics["both"]["discriminator"] > 0
    plain, both = (load_file(tmp_path / name / "vae" / "diffusion_pytorch_model.safetensors") for name in metrics)
    assert plain.keys() == both.keys()
    assert any(np.abs(plain[key] - both[key]).max() > 1e-3 for key in plain)
    assert load(tmp_path / "both").text_to_image("a red circle", steps=1).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(("size", "changes", "message"), [
    (16, BOTH, "size 16 is too small for the discriminator: use 24 pixels or more"),
    (4, BOTH | {"adversarial_weight": 0.0}, "size 4 is too small for the perceptual distance: use 8 pixels or more"),
    (8, {"condition": "image"}, "size 8 is too small for pictures that lead: use 16 pixels or more"),
])  # fmt: skip
def test_pictures_too_small_for_the_networks_are_refused_before_the_training(tmp_path, size, changes, message):
    (tmp_path / "set" / "red").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "set" / "red" / "a.png")
    preset = dataclasses.replace(PRESET, **changes)
    with pytest.raises(UserError, match=message):
        training.train(tmp_path / "set", tmp_path / "o", steps=1, size=size, preset=preset)
    assert not (tmp_path / "o").exists()
