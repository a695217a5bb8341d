"""minild doctor: what it prints of a training, as text and as JSON, and what it refuses."""

import json

import pytest
from PIL import Image
from refusal import refused

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
    step = "mine: shapes, stage one, the autoencoder, step 10 of 400 (2 %)"
    assert head == f"{step}; last written to less than two minutes ago" and empty == ""
    assert name == "too early to tell"
    assert seen == "  seen  stage two, in which noise becomes pictures, has not begun"
    assert advice == "  try   wait"


def test_it_changes_nothing(run, training):
    def tree():
        return {path: path.read_bytes() for path in training.rglob("*") if path.is_file()}

    before = tree()
    run("doctor", "mine")
    assert tree() == before


def test_what_is_no_training_is_refused(run, training, tmp_path):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "empty" / "picture.png")
    holds_none = "holds no training of a pipeline, as `minild train` writes it"
    for name in ("empty", "nowhere", "empty/picture.png"):
        assert refused(run("doctor", name)).rstrip().endswith(f"{name} {holds_none}")
    assert refused(run("doctor", "mine/training")).rstrip().endswith(f"{holds_none}: name mine")
    assert "the following arguments are required: DIR" in refused(run("doctor"))
    (training / "training" / "state.json").write_text("{")
    assert "is not JSON" in refused(run("doctor", "mine"))


def test_what_is_tuned_is_no_training_of_a_pipeline(run, tmp_path):
    for folder in ("mine-training", "thing/training"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "metrics.jsonl").write_text('{"stage": "lora", "step": 10, "loss": 0.3}\n')
        name = folder.split("/")[0]
        words = f"{name} holds the training of a lora: the doctor looks at those of pipelines alone"
        assert refused(run("doctor", name)).rstrip().endswith(words)


def test_a_pipeline_that_another_trained_is_refused(run, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model_index.json").write_text("{}")
    assert "foreign does not say what it was trained on" in refused(run("doctor", "foreign"))
