"""A resume goes on with the preset that a training was begun with, whatever the data set's is by now."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from minild import checkpoints, training
from minild.checkpoints import STAGES
from minild.errors import UserError
from minild.training import budget, run, stage
from minild.training.presets import StagePreset
from training.tiny_preset import TINY

NEWER = dataclasses.replace(
    TINY,
    autoencoder=StagePreset(learning_rate=1e-3, batch_size=4, optimizer="muon", steps=2),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=4, optimizer="muon", steps=2),
    unet_channels=(8, 16),
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(stage, "SHEETS", 1)
    monkeypatch.setattr(run, "SAMPLES", 2)
    monkeypatch.setattr(run, "preset_for", lambda dataset: NEWER)


def begin(folder, steps=3, **how):
    """A training of TINY that stopped after stage one; its state."""
    training.train("shapes", folder, steps=steps, preset=TINY, autoencoder_only=True, **how)
    return checkpoints.newest(folder).state


def save(folder, state):
    checkpoints.write(folder, state, checkpoints.newest(folder).read_arrays())


def taken(folder):
    return checkpoints.newest(folder).state["taken"]


def test_a_resume_takes_the_preset_that_was_begun_with(tmp_path):
    for folder, more in (("given", {"preset": TINY}), ("told", {})):
        begin(tmp_path / folder)
        training.train("shapes", tmp_path / folder, resume=True, **more)
    ours, theirs = (checkpoints.newest(tmp_path / folder) for folder in ("told", "given"))
    assert ours.state["preset"] == theirs.state["preset"] and ours.state["taken"] == dict.fromkeys(STAGES, 3)
    ours, theirs = ours.read_arrays(), theirs.read_arrays()
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("untold", ["posterior", "preset"])
def test_one_from_before_there_was_a_choice_goes_on_with_samples(tmp_path, monkeypatch, untold):
    """The oldest do not tell their preset at all."""
    state = begin(tmp_path)
    assert state["preset"]["posterior"] == NEWER.posterior == "mode"
    if untold == "preset":
        monkeypatch.setattr(run, "preset_for", lambda dataset: TINY)
        del state["preset"]
    else:
        del state["preset"]["posterior"]
    save(tmp_path, state)
    training.train("shapes", tmp_path, resume=True)
    assert checkpoints.newest(tmp_path).state["preset"]["posterior"] == "sample"


def test_one_that_an_older_version_began_by_the_clock_goes_on_by_the_clock(tmp_path, monkeypatch):
    """Its preset did not count steps, and had AdamW, where the data set's has Muon by now."""
    state = begin(tmp_path)
    older = state["preset"] | {"minutes": 10}
    for name in STAGES:
        older[name] = {field: value for field, value in older[name].items() if field != "steps"}
    elapsed = {"autoencoder": 150.0, "diffusion": 0.0}
    save(tmp_path, state | {"preset": older, "steps": None, "minutes": (150 + 20) / 60, "elapsed": elapsed})
    ticks = itertools.count()
    for module in (budget, run):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 10))
    training.train("shapes", tmp_path, resume=True)
    assert taken(tmp_path)["diffusion"] > 2  # where the data set's own ends
    assert checkpoints.newest(tmp_path).state["preset"]["diffusion"]["optimizer"] == "adamw"


def test_where_nothing_ends_a_training_it_is_refused_and_loses_nothing(tmp_path):
    state = begin(tmp_path)
    save(tmp_path, state | {"steps": None})
    with pytest.raises(UserError, match="the preset does not say how many steps to take: give minutes or steps"):
        training.train("shapes", tmp_path, resume=True)
    training.train("shapes", tmp_path, resume=True, steps=1)
    assert taken(tmp_path) == {"autoencoder": 3, "diffusion": 1}


@pytest.mark.parametrize("preset, words", [
    ([3], "AttributeError"),
    ({"diffusion": {"batch_size": 3}}, "TypeError"),
    ({"diffusion": {"learning_rate": 1e-3, "batch_size": 4, "steps": -5}}, "expected a whole number from 1, got -5"),
    ({"diffusion": {"learning_rate": 1e-3, "batch_size": 4, "optimizer": "sgd"}}, "unknown optimizer 'sgd'"),
    ({"channels": [8, "8", 8]}, "'channels' cannot be"),
    ({"upscaling": 3}, "'upscaling' cannot be 3"),
])  # fmt: skip
def test_a_preset_that_makes_no_sense_is_refused(preset, words, tmp_path):
    save(tmp_path, begin(tmp_path) | {"preset": preset})
    with pytest.raises(UserError, match=r"state\.json cannot be used: ") as refusal:
        training.train("shapes", tmp_path, resume=True)
    assert words in str(refusal.value)


def test_of_minutes_and_steps_the_steps_count(tmp_path):
    training.train("shapes", tmp_path, minutes=1.0, steps=1, preset=TINY)
    command = json.loads((tmp_path / "minild.json").read_text())["command"]
    assert "--steps 1" in command and "--minutes" not in command


@pytest.mark.parametrize("length", [{"minutes": float("nan")}, {"minutes": float("inf")}, {"minutes": -1.0},
                                    {"steps": -1}, {"steps": 2.5}])  # fmt: skip
def test_a_length_that_is_none_is_refused(length, tmp_path):
    [(name, value)] = length.items()
    with pytest.raises(UserError, match=f"{name} cannot be {value!r}"):
        training.train("shapes", tmp_path / "new", preset=TINY, **length)
    assert not (tmp_path / "new").exists()


def test_stages_count_whole_steps():
    for steps in (0, -1, 2.5, "3"):
        with pytest.raises(UserError, match="steps: expected a whole number from 1"):
            StagePreset(learning_rate=1e-3, batch_size=4, steps=steps)
