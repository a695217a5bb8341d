"""A training whose numbers are none stops before it saves them; a discriminator that has collapsed is told of."""

import json
import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild import checkpoints, cli, training
from minild.backend import to_device
from minild.errors import UserError
from minild.training import run, stage
from minild.training.autoencoder import AutoencoderObjective
from minild.training.budget import Budget
from minild.training.journal import Journal, plot_losses
from minild.training.latent_diffusion import DiffusionObjective
from minild.training.replicas import Replicas
from minild.training.watch import EVERY, PATIENCE, CollapseWatch, Diverged, Watch
from training.tiny_preset import TINY

FINE = {"loss": 0.5, "l1": 0.3, "kl": 0.2, "gradient_norm": 4.0}


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"kl": math.inf, "loss": math.inf}, "the loss 'kl' is inf"),
        ({"kl": math.nan, "loss": math.nan, "gradient_norm": math.nan}, "the loss 'kl' is nan"),
        ({"l1": math.nan, "kl": -math.inf}, "the loss 'l1' is nan and the loss 'kl' is -inf"),
        ({"loss": math.nan}, "the loss is nan"),
        ({"gradient_norm": math.inf}, "the gradient's norm is inf"),
    ],
)
def test_it_names_stage_step_and_part(faults, words):
    watch = Watch("autoencoder")
    watch.note(1233, FINE)
    with pytest.raises(Diverged) as caught:
        watch.note(1234, FINE | faults)
    assert str(caught.value) == f"stage autoencoder, step 1,234: {words}, so the training stops"


def test_large_numbers_are_numbers():
    watch = Watch("diffusion")
    for step in range(30):
        watch.note(step, {"loss": 1.5e308, "l1": 1.5e308, "kl": -1.5e308})
    watch.check()


def test_a_gpu_is_waited_for_every_tenth_step_and_before_a_save(device):
    """The step that is named is the first whose numbers are none, whenever they are looked at."""
    watch, waits = Watch("diffusion"), []

    def note(step, value):
        metrics = {"loss": to_device(np.float32([value]), device)[0]}
        with count_synchronisations() as counter:
            watch.note(step, metrics)
        waits.append(bool(counter.count))

    for step in range(1, 26):
        note(step, 1.0)
    watch.check()
    assert [step for step, waited in enumerate(waits, 1) if waited] == ([10, 20] if device == "double" else [])
    with pytest.raises(Diverged, match="step 28: the loss is nan"):
        for step in range(26, 30):
            note(step, math.nan if step >= 28 else 1.0)
        watch.check()


STEPS = 6
OBJECTIVES = {"autoencoder": AutoencoderObjective, "diffusion": DiffusionObjective}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(run, "preset_for", lambda dataset: TINY)
    monkeypatch.setattr(run, "SAMPLES", 1)
    monkeypatch.setattr(stage, "SHEETS", 1)
    monkeypatch.setattr(stage, "SAVE_EVERY", -1.0)  # at every step


def spoil(monkeypatch, name, part, at):
    """From step `at` of that stage on, that part of its losses, or its gradient, is NaN."""
    gradient, steps = Replicas.gradient, []

    def spoiled(self, batch):
        losses = gradient(self, batch)
        if isinstance(self.objective, OBJECTIVES[name]):
            steps.append(1)
            if len(steps) >= at and part == "gradient":
                self.gradients[0].array[:1] = np.nan
            elif len(steps) >= at:
                losses[part] = losses[part] * np.float32(np.nan)
        return losses

    monkeypatch.setattr(Replicas, "gradient", spoiled)


WORDS = {"kl": "the loss 'kl' is nan", "loss": "the loss is nan", "gradient": "the gradient's norm is nan"}


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "part"),
    [("autoencoder", "kl"), ("autoencoder", "gradient"), ("diffusion", "loss"), ("diffusion", "gradient")],
)
def test_what_was_saved_before_stays_and_is_gone_on_with(small, name, part, tmp_path, capsys, monkeypatch):
    command = ["train", "shapes", "--output", str(tmp_path / "out"), "--steps", str(STEPS)]
    training.train("shapes", tmp_path / "whole", steps=STEPS)
    capsys.readouterr()
    saves = []
    with monkeypatch.context() as patch:
        spoil(patch, name, part, at=4)
        write = checkpoints.write

        def save(*arguments):
            write(*arguments)
            saves.append(checkpoints.newest(tmp_path / "out").read_arrays())

        patch.setattr(checkpoints, "write", save)
        assert cli.main(command) == 2
    out, err = capsys.readouterr()
    [line] = [line for line in err.splitlines() if line.startswith("minild: ")]
    taken = {stage: STEPS if name == "diffusion" and stage == "autoencoder" else 0 for stage in OBJECTIVES} | {name: 3}
    told = f"saved in {tmp_path / 'out'} are the steps {taken['autoencoder']} of autoencoder and "
    told += f"{taken['diffusion']} of diffusion: add --resume to go on"
    assert line == f"minild: stage {name}, step 4: {WORDS[part]}, so the training stops; {told}"
    assert out == "" and "Traceback" not in err and "Warning" not in err
    saved = checkpoints.newest(tmp_path / "out")
    assert saved.state["taken"] == taken
    for key, array in saved.read_arrays().items():
        np.testing.assert_array_equal(array, saves[-1][key])
    [note] = (tmp_path / "out" / "training" / "metrics.jsonl").read_text().splitlines()[-1:]
    diverged = f"stage {name}, step 4: {WORDS[part]}, so the training stops"
    assert json.loads(note) == {"stage": name, "step": 4, "diverged": diverged}
    assert cli.main([*command, "--resume"]) == 0
    for part in ("vae", "unet", "text_encoder"):
        assert tree(tmp_path / "out" / part) == tree(tmp_path / "whole" / part)


def test_weights_that_are_none_are_not_drawn_from_either(small, tmp_path, monkeypatch):
    """Were the sheet drawn first, it would be the pictures that are complained of."""
    spoil(monkeypatch, "diffusion", "gradient", at=STEPS)
    with pytest.raises(UserError, match=f"stage diffusion, step {STEPS}: the gradient's norm is nan"):
        training.train("shapes", tmp_path / "out", steps=STEPS)
    assert not list((tmp_path / "out" / "training").glob("diffusion-*.png"))


def test_the_network_of_the_perceptual_distance_is_not_written_either(tmp_path, monkeypatch):
    gradient = Replicas.gradient
    monkeypatch.setattr(Replicas, "gradient", lambda *a: gradient(*a) | {"loss": np.float32(np.inf)})
    with pytest.raises(Diverged, match="stage perceptual, step 1: the loss is inf, so the training stops"):
        training.train_perceptual(tmp_path / "out", steps=3, size=32)
    assert not (tmp_path / "out" / "config.json").exists()


HEALTHY = {"discriminator": 0.8, "real": 0.4, "generated": -0.2}


def told(watch, means, looks):
    return [line for line in (watch.note(means) for _ in range(looks)) if line]


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ({"discriminator": 0.0, "real": 2.0, "generated": -3.0}, "its loss is 0, it always tells"),
        ({"discriminator": 1.0, "real": 0.103, "generated": 0.1}, "the same logit, 0.103"),
    ],
)
def test_a_collapse_is_told_once_and_not_before_it_has_lasted(means, words):
    watch, patience = CollapseWatch(), PATIENCE // EVERY
    assert not told(watch, means, patience - 1)
    assert not told(watch, HEALTHY, 1)
    assert not told(watch, means, patience - 1)
    [line] = told(watch, means, 3 * patience)
    assert line.startswith(f"the discriminator has collapsed: for {PATIENCE} steps ") and words in line


@pytest.mark.parametrize("means", [HEALTHY, {"loss": 0.1}, {"discriminator": 0.0, "real": 0.0, "generated": 0.0}])
def test_nothing_is_told_of_a_healthy_one_of_none_and_before_it_begins(means):
    assert not told(CollapseWatch(), means, 100)


def test_the_journal_warns_on_stderr_and_in_the_metrics(tmp_path, capsys):
    budget = Budget(steps=PATIENCE + 20)
    with Journal(tmp_path, "autoencoder", budget, 8) as journal:
        for _ in range(PATIENCE + 20):
            budget.taken += 1
            journal.note({"loss": 0.1, "discriminator": 0.0, "real": 2.0, "generated": -2.0})
    said = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    [warning] = [entry for entry in entries if "warning" in entry]
    assert warning["stage"] == "autoencoder" and warning["step"] == PATIENCE
    assert len(said) == 1
    assert said[0].endswith(f"minild: stage autoencoder, step {PATIENCE}: {warning['warning']}")
    assert len(entries) == PATIENCE // EVERY + 3
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").is_file()
