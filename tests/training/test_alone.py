"""Trainings of one network: what they find in their folder, and what they leave there."""

import json

import numpy as np
import pytest

from minild import training
from minild.errors import UserError
from minild.nn.layers import Linear
from minild.training.alone import LAST, new_folder, require_unused, require_writable_folder, train_alone
from minild.training.presets import StagePreset


class Line:
    """An objective: y = x, for a Linear of one number."""

    def batch(self, rng, size, progress):
        return (rng.standard_normal((size, 1), dtype=np.float32),)

    def forward(self, model, batch):
        y, cache = model.forward(*batch)
        return {"loss": ((y - batch[0]) ** 2).mean()}, (model, 2 * (y - batch[0]) / y.size, cache)

    def backward(self, dloss, cache):
        model, dy, cache = cache
        model.backward(dloss * dy, cache)


@pytest.mark.parametrize("split", [True, False])
def test_a_network_learns_and_its_metrics_are_written_anew(tmp_path, split):
    (tmp_path / "metrics.jsonl").write_text("of a training that was stopped\n")
    model, preset = Linear(1, 1), StagePreset(learning_rate=0.1, batch_size=8)
    budget, last = train_alone("line", model, Line(), tmp_path, preset, None, LAST + 20, 0, split)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10, LAST + 21, 10)) and lines[0]["stage"] == "line"
    assert budget.taken == LAST + 20 and len(last) == LAST and last[-1]["loss"] < 0.1 * lines[0]["loss"]


def test_a_budget_of_no_time_takes_no_steps(tmp_path):
    preset = StagePreset(learning_rate=0.1, batch_size=8)
    budget, last = train_alone("line", Linear(1, 1), Line(), tmp_path, preset, 1e-9, None, 0)
    assert budget.taken == 0 and not last


TRAININGS = {
    "perceptual": training.train_perceptual,
    "clip": lambda output, **how: training.train_clip("shapes", output, **how),
    "classifier": lambda output, **how: training.train_classifier("shapes", output, **how),
    "pipeline": lambda output, **how: training.train("shapes", output, **how),
}


SAVED = "training/checkpoint-autoencoder-000000/state.json"


@pytest.mark.parametrize("held", ["config.json", "model_index.json", "training/state.json", SAVED])
@pytest.mark.parametrize("what", TRAININGS)
def test_no_training_writes_over_half_of_another(what, held, tmp_path):
    (tmp_path / held).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / held).write_text("{}")
    with pytest.raises(UserError, match=r"holds a (model|training) already: .*name another folder"):
        TRAININGS[what](tmp_path, steps=1)
    assert (tmp_path / held).read_text() == "{}" and not (tmp_path / "minild.json").exists()


def test_whether_a_folder_can_be_written_leaves_nothing_behind(tmp_path):
    require_writable_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    require_writable_folder(tmp_path / "a")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        require_writable_folder(tmp_path / "file" / "b")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    require_unused(tmp_path / "file")
    below = tmp_path / "file" / "new"
    with pytest.raises(UserError, match=r"cannot write to .*new: Not a directory"), new_folder(below):
        pass
    full = OSError(28, "No space left on device")
    with pytest.raises(UserError, match=r"cannot write to .*: No space left"), new_folder(tmp_path / "new") as folder:
        assert folder.is_dir()
        raise full
