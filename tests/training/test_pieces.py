"""A training in pieces is the training in one go, bit for bit, and its metrics are the same but for the times."""

import dataclasses
import json
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from minild import checkpoints, cli, training
from minild.errors import Terminated, UserError
from minild.training import journal, run, stage
from minild.training.learner import Learner
from training.tiny_preset import SMALL, TINY

MUON = dataclasses.replace(SMALL, optimizer="muon")
KINDS = {
    "kl, text, epsilon": {},
    "vq with a tracker": {"regularisation": "vq", "codebook_size": 40, "code_width": 3},
    "adversarial": {
        "perceptual_weight": 0.2, "adversarial_weight": 0.3, "adversarial_start": 0.4, "discriminator_width": 4
    },
    "muon": {"autoencoder": MUON, "diffusion": MUON},
    "flow": {"objective": "flow", "times": "logit_normal"},
    "learned variance": {"objective": "learned-variance", "offset_noise": 0.1},
    "low resolution": {"condition": "low resolution"},
}  # fmt: skip
STEPS = 6
MODELS = "vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model", "text_encoder/model"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(run, "preset_for", lambda dataset: TINY)
    monkeypatch.setattr(run, "draw_sheet", lambda *arguments: None)
    monkeypatch.setattr(run, "SAMPLES", 1)
    monkeypatch.setattr(stage, "SHEETS", 1)
    monkeypatch.setattr(journal, "EVERY", 2)


@pytest.fixture
def stop_at(monkeypatch):
    """stop_at(steps, number): that signal comes once within each of the steps, (stage, number) each."""
    steps_of = Learner.steps

    def stop_at(steps, number=signal.SIGINT):
        left = list(steps)

        def interrupted(self, gradient=None):
            name = "diffusion" if hasattr(self.model, "unet") else "autoencoder"
            for step, metrics in steps_of(self, gradient):
                if (name, step) in left:
                    left.remove((name, step))
                    signal.raise_signal(number)
                yield step, metrics

        monkeypatch.setattr(Learner, "steps", interrupted)
        return left

    return stop_at


def train(output, preset, resume=False):
    training.train("shapes", output, steps=None if resume else STEPS, seed=4, preset=preset, resume=resume)


def train_in_pieces(output, preset, between=lambda: None):
    """-> how many pieces."""
    pieces = 1
    while True:
        try:
            train(output, preset, resume=pieces > 1)
            return pieces
        except KeyboardInterrupt:
            pieces += 1
            between()


def lines(output):
    """metrics.jsonl without what the clock says."""
    entries = [json.loads(line) for line in (output / "training" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")} for entry in entries]


def require_same(output, expected):
    files = [name for name in MODELS if (expected / f"{name}.safetensors").exists()]
    assert len(files) >= 2
    pairs = {name: [load_file(folder / f"{name}.safetensors") for folder in (output, expected)] for name in files}
    saved = [checkpoints.newest(folder) for folder in (output, expected)]
    pairs["saved"] = [checkpoint.read_arrays() for checkpoint in saved]
    for name, (ours, theirs) in pairs.items():
        assert ours.keys() == theirs.keys()
        for key, array in ours.items():
            assert np.array_equal(array, theirs[key]), (name, key)
    assert saved[0].state["generator"] == saved[1].state["generator"]
    assert lines(output) == lines(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_any_pieces_give_the_weights_of_one_go(kind, tmp_path, stop_at):
    preset = dataclasses.replace(TINY, **KINDS[kind])
    train(tmp_path / "whole", preset)
    stops = [("autoencoder", 1), ("autoencoder", 3), ("autoencoder", 6), ("diffusion", 2), ("diffusion", 5)]
    stop_at(stops)
    assert train_in_pieces(tmp_path / "pieces", preset) == 6
    require_same(tmp_path / "pieces", tmp_path / "whole")
    told = [(line["stage"], line["step"]) for line in lines(tmp_path / "pieces")]
    assert told == [(name, step) for name in ("autoencoder", "diffusion") for step in (2, 4, 6)]


def test_a_damaged_save_costs_time_alone(tmp_path, stop_at, capsys):
    """The one before it is gone on with, and metrics.jsonl goes back to that."""
    train(tmp_path / "whole", TINY)
    stops = [("autoencoder", 2), ("autoencoder", 5), ("diffusion", 1), ("diffusion", 4)]
    left, torn = stop_at(stops), []

    def tear():
        newest = checkpoints.newest(tmp_path / "pieces").folder
        if len(left) in (2, 0):
            file = newest / "state.safetensors"
            file.write_bytes(file.read_bytes()[:-7])
            torn.append(newest.name)
            with open(tmp_path / "pieces" / "training" / "metrics.jsonl", "a") as metrics:
                metrics.write('{"stage": "auto')  # half a line, too

    capsys.readouterr()
    assert train_in_pieces(tmp_path / "pieces", TINY, tear) == 5
    assert torn == ["checkpoint-autoencoder-000005", "checkpoint-diffusion-000004"]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minild:")]
    for line, name, before in zip(told, torn, ("autoencoder-000002", "diffusion-000001"), strict=True):
        end = f"is damaged: its checksum is another: going on from checkpoint-{before}, saved before it"
        assert f"{name}/state.safetensors {end}" in line
    require_same(tmp_path / "pieces", tmp_path / "whole")


def test_a_training_of_the_older_layout_is_gone_on_with(tmp_path, stop_at):
    train(tmp_path / "whole", TINY)
    stop_at([("diffusion", 3)])
    output = tmp_path / "pieces"

    def as_before():
        saved = checkpoints.newest(output)
        arrays = saved.folder / "state.safetensors"
        arrays.rename(output / "training" / arrays.name)
        (output / "training" / "state.json").write_text(json.dumps(saved.state))
        for folder in (output / "training").glob("checkpoint-*"):
            checkpoints.rmtree(folder)

    assert train_in_pieces(output, TINY, as_before) == 2
    require_same(output, tmp_path / "whole")
    assert {path.name for path in (output / "training").glob("*-*6")} == {"checkpoint-diffusion-000006"}


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_command_saves_and_leaves_with_the_signals_status(name, status, tmp_path, stop_at, capsys, monkeypatch):
    number = getattr(signal, name)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop_at([("autoencoder", 2)], number)
    command = ["train", "shapes", "--output", str(tmp_path / "out"), "--steps", str(STEPS), "--seed", "4"]
    assert cli.main(command) == status
    out, err = capsys.readouterr()
    saved = f"saved in {tmp_path / 'out'} are the steps 2 of autoencoder and 0 of diffusion: add --resume to go on"
    assert [line for line in err.splitlines() if line.startswith("minild: ")] == [f"minild: stopped; {saved}"]
    assert out == "" and [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    with monkeypatch.context() as patch:  # outside of the steps, too, as while pictures are read
        patch.setattr(run, "gather", lambda *arguments: signal.raise_signal(number))
        assert cli.main([*command, "--resume"]) == status
    assert f"minild: stopped; {saved}" in capsys.readouterr().err
    assert cli.main([*command, "--resume", "--keep", "5"]) == 0
    saves = [path.name[11:] for path in sorted((tmp_path / "out" / "training").glob("checkpoint-*"))]
    first = [f"autoencoder-{step:06d}" for step in (0, 2, 6)]
    assert saves == [*first, "diffusion-000000", "diffusion-000006"]


def test_sigterm_is_told_from_ctrl_c_in_python(tmp_path, stop_at):
    stop_at([("autoencoder", 2)], signal.SIGTERM)
    with pytest.raises(Terminated):
        train(tmp_path, TINY)
    assert checkpoints.newest(tmp_path).state["taken"]["autoencoder"] == 2


def test_at_least_one_save_is_kept(tmp_path):
    with pytest.raises(UserError, match="keep: expected a whole number from 1, got 0"):
        training.train("shapes", tmp_path / "out", steps=1, keep=0)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_vanishes_or_cannot_be_written_is_one_line(tmp_path, stop_at, monkeypatch):
    stop_at([("autoencoder", 2)])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", TINY)
    mkdir = checkpoints.Path.mkdir

    def read_only(path, *arguments, **settings):
        if path.name == checkpoints.ASIDE:
            raise OSError(30, "Read-only file system")
        mkdir(path, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Path, "mkdir", read_only)
        saved = r"saved in .*out are the steps 2 of autoencoder and 0 of diffusion: add --resume to go on"
        with pytest.raises(UserError, match=rf"^cannot write to .*out: Read-only file system; {saved}$"):
            train(tmp_path / "out", TINY, resume=True)
    assert checkpoints.newest(tmp_path / "out").state["taken"]["autoencoder"] == 2
    monkeypatch.setattr(run, "draw_sheet", lambda path, *arguments: checkpoints.rmtree(path.parent.parent))
    gone = r"No such file or directory; nothing was saved: give the same command again"
    with pytest.raises(UserError, match=rf"^cannot write to .*out: {gone}$"):
        train(tmp_path / "out", TINY, resume=True)
