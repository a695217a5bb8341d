"""`minild train perceptual`: its classifier's gradient, that it learns, and the folder that it leaves."""

import json

import numpy as np
import pytest

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import LPIPS
from minild.pretrained import read_json
from minild.training import perceptual
from minild.training.perceptual import Classifier, ClassifierObjective, train_perceptual


def test_classifier_gradients(rng):
    model = Classifier({"widths": [3, 4], "depths": [1, 2]}, classes=5)
    check_module(model, {"x": rng.uniform(-1, 1, (2, 6, 8, 3))}, samples=40)


def test_the_loss_is_the_cross_entropy_of_the_labels(rng):
    model = Classifier({"widths": [4], "depths": [1]}, classes=3)
    objective = ClassifierObjective(rng.integers(0, 256, (9, 8, 8, 3), np.uint8), np.arange(9) % 3)
    x, labels = batch = objective.batch(rng, 40, 0.0)
    losses, _ = objective.forward(model, batch)
    logits = model(x)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert float(losses["loss"]) == pytest.approx(-np.log(probabilities[np.arange(40), labels]).mean(), rel=1e-5)
    assert float(losses["accuracy"]) == pytest.approx((logits.argmax(axis=1) == labels).mean())


def test_a_training_learns_and_leaves_a_distance(tmp_path, monkeypatch):
    """Three classes that tell themselves apart by their stripes, at a width of a few channels."""
    stripes = np.zeros((3, 16, 16, 3), np.uint8)
    stripes[0, ::2], stripes[1, :, ::2], stripes[2] = 255, 255, 128
    monkeypatch.setattr(perceptual, "CONFIG", {"widths": [8, 8], "depths": [1, 1]})
    monkeypatch.setattr(perceptual, "load_classes", lambda size: (stripes, np.arange(3), ["rows", "columns", "plain"]))
    train_perceptual(tmp_path, steps=200)
    record = read_json(tmp_path / "minild.json")
    assert record["accuracy"] > 0.8 and record["steps"] == 200 and record["classes"] == 3
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    model = LPIPS.from_pretrained(tmp_path)
    x = stripes / np.float32(127.5) - 1
    between = model(x, x[[1, 2, 0]])
    assert (model(x, x) == 0).all() and between.min() > 0.01
    with pytest.raises(UserError, match="holds a model already"):
        train_perceptual(tmp_path, steps=1)


def test_an_output_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    pictures = np.zeros((2, 16, 16, 3), np.uint8)
    monkeypatch.setattr(perceptual, "load_classes", lambda size: (pictures, np.arange(2), "ab"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        train_perceptual(tmp_path / "file" / "model", steps=1)
