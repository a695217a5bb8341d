"""minild doctor: what it prints of a training, as text and as JSON, and what it refuses."""

import json

import pytest
from refusal import refused

from minild.training.doctor_finding import Finding
from minild.training.presets import PRESETS
from minild.training.state import first_state


@pytest.fixture
def training(tmp_path):
    """The folder of a training of which ten steps are noted, and half a line."""
    folder = tmp_path / "mine" / "training"
    folder.mkdir(parents=True)
    state = first_state("shapes", 32, 0, None, 400, PRESETS["shapes"].choices)
    (folder / "state.json").write_text(json.dumps(state))
    entry = {"stage": "autoencoder", "step": 10, "progress": 0.025, "loss": 2.9, "l1": 0.6, "mse": 0.57, "kl": 3.2}
    (folder / "metrics.jsonl").write_text(json.dumps(entry) + '\n{"stage": "autoen')
    return folder.parent


def test_it_says_how_far_it_is_what_is_seen_and_what_to_try(run, training):
    status, out, err = run("doctor", "mine")
    assert (status, err) == (0, "")
    head, empty, name, seen, advice = out.splitlines()
    assert head == "mine: shapes, stage one, the autoencoder, step 10 of 400 (2 %); it runs" and empty == ""
    assert name == "too early to tell"
    assert seen == "  seen  stage two, in which noise becomes pictures, has not begun"
    assert advice == "  try   wait; until then autoencoder-*.png in training/ shows the most"


def test_it_gives_the_findings_as_json_too(run, training, tmp_path):
    status, out, err = run("doctor", "mine", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["training"] == "mine" and told["how_far"].endswith("step 10 of 400 (2 %); it runs")
    [finding] = told["findings"]
    assert Finding(**finding).name == "too early to tell"
    status, text, _ = run("doctor", "mine", "--json", "told.json")
    assert status == 0 and text.startswith("mine: shapes, ")
    assert json.loads((tmp_path / "told.json").read_text()) == told
    assert "cannot write" in refused(run("doctor", "mine", "--json", "nowhere/told.json"))


def test_it_changes_nothing(run, training):
    def tree():
        return {path: path.read_bytes() for path in training.rglob("*") if path.is_file()}

    before = tree()
    run("doctor", "mine")
    assert tree() == before


def test_what_is_no_training_is_refused(run, training, tmp_path):
    (tmp_path / "empty").mkdir()
    holds_none = "holds no training: expected a folder with training/state.json"
    assert holds_none in refused(run("doctor", "empty"))
    assert holds_none in refused(run("doctor", "nowhere"))
    assert holds_none in refused(run("doctor", "MODEL"))
    assert "the following arguments are required: DIR" in refused(run("doctor"))
    (training / "training" / "state.json").write_text("{")
    assert "is not JSON" in refused(run("doctor", "mine"))
