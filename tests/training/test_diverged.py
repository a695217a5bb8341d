"""A step whose numbers are none is told so that it can be taken again."""

import dataclasses
import json

import numpy as np
import pytest

from minild import training
from minild.errors import UserError
from minild.training import replay, run, stage
from minild.training.replicas import Replicas
from training.tiny_preset import TINY

AGAINST = dataclasses.replace(TINY, adversarial_weight=0.3, adversarial_start=0.0, discriminator_width=4)
STEPS = 6


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(run, "draw_sheet", lambda *arguments: None)
    monkeypatch.setattr(run, "SAMPLES", 1)
    monkeypatch.setattr(stage, "SHEETS", 1)


def diverge(output, preset, name, at, monkeypatch):
    """Train until the loss of that step of the stage is NaN -> the batch, and the weights before it."""
    gradient, seen = Replicas.gradient, []

    def spoiled(self, batch):
        if hasattr(self.modules[0], "unet") == (name == "diffusion"):
            seen.append((batch, self.weights.gather().copy()))
        losses = gradient(self, batch)
        return losses | {"loss": np.float32(np.nan)} if len(seen) == at else losses

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"stage {name}, step {at}: the loss is nan"):
        patch.setattr(Replicas, "gradient", spoiled)
        training.train("shapes", output, steps=STEPS, seed=4, preset=preset)
    return seen[-1]


@pytest.mark.parametrize(
    ("name", "at", "preset"), [("autoencoder", 4, TINY), ("autoencoder", 2, AGAINST), ("diffusion", 5, TINY)]
)
def test_the_step_is_taken_again_up_to_its_numbers(name, at, preset, tmp_path, monkeypatch):
    batch, weights = diverge(tmp_path, preset, name, at, monkeypatch)
    told = json.loads((tmp_path / "training" / "diverged.json").read_text())
    assert {field: told[field] for field in ("stage", "step", "faults", "batch_size", "progress")} == {
        "stage": name, "step": at, "faults": {"loss": "nan"}, "batch_size": 4, "progress": (at - 1) / STEPS
    }  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = replay(tmp_path, preset=preset)
    assert again.same and again.told == told
    for ours, theirs in zip(again.batch, batch, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(Replicas(again.model, again.objective, 1).weights.gather(), weights)
    losses, cache = again.objective.forward(again.model, again.batch)
    again.objective.backward(1.0, cache)
    assert np.isfinite(losses["loss"])  # for it was spoiled from outside
    if name == "autoencoder":
        rebuilding = getattr(again.objective, "rebuilding", again.objective)
        np.testing.assert_array_equal(rebuilding.pictures[told["rows"]], batch[0])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_there_is_nothing_to_replay(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no training that diverged"):
        replay(tmp_path)
    diverge(tmp_path, TINY, "autoencoder", 2, monkeypatch)
    training.train("shapes", tmp_path, resume=True, preset=TINY)
    with pytest.raises(UserError, match="holds no save from before step 2 of autoencoder, which diverged"):
        replay(tmp_path, preset=TINY)
