"""train_classifier: its objective by formula and by differences, the folder it writes, and that it learns."""

import json

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image

from minild.diffusion import FlowSchedule, NoiseSchedule
from minild.errors import UserError
from minild.models import LatentClassifier
from minild.pipelines import load
from minild.training import training_steps
from minild.training.budget import Budget
from minild.training.classifier import LatentClassifierObjective, train_classifier
from minild.training.presets import StagePreset

CONFIG = {"block_out_channels": [8, 8], "norm_num_groups": 4}


def objective(count=200):
    """Latents 4 x 4 x 2 of three classes, each a mean of its own."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=count)
    means = (rng.standard_normal((3, 1, 1, 2), np.float32) * 2)[labels] + np.zeros((count, 4, 4, 2), np.float32)
    return LatentClassifierObjective(means, np.full_like(means, 0.1), 0.7, labels, NoiseSchedule())


def test_a_batch_is_noisy_latents_at_all_levels():
    x, t, labels = objective().batch(np.random.default_rng(1), 5000, 0.5)
    assert x.shape == (5000, 4, 4, 2) and x.dtype == t.dtype == np.float32
    assert t.min() < 20 and t.max() > 980 and np.array_equal(t, np.floor(t))
    noise_level = np.sqrt(1 - NoiseSchedule().alphas_cumprod[t.astype(int)])
    assert np.corrcoef(noise_level, x.std(axis=(1, 2)).mean(axis=1))[0, 1] > 0.9
    assert np.bincount(labels).tolist() == pytest.approx([5000 / 3] * 3, rel=0.2)


def test_the_loss_is_its_formula_and_its_gradient_is_the_slope(rng):
    model = LatentClassifier.from_config(CONFIG | {"in_channels": 2, "classes": ["a", "b", "c"]}).astype("float64")
    x, t, labels = objective().batch(rng, 4, 0.5)
    batch = x.astype(float), t.astype(float), labels
    losses, cache = objective().forward(model, batch)
    logits = model(*batch[:2])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert losses["loss"] == pytest.approx(-np.log(probabilities[np.arange(4), labels]).mean())
    assert losses["accuracy"] == (probabilities.argmax(axis=1) == labels).mean()
    objective().backward(1.0, cache)
    weight, direction = model.head.weight, rng.standard_normal(model.head.weight.shape)
    middle, ends = weight.data.copy(), []
    for step in (1e-6, -1e-6):
        weight.data = middle + step * direction
        ends.append(objective().forward(model, batch)[0]["loss"])
    assert (weight.grad * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_it_learns():
    model = LatentClassifier.from_config(CONFIG | {"in_channels": 2, "classes": ["a", "b", "c"]})
    preset = StagePreset(learning_rate=1e-2, batch_size=32)
    *_, (_, last) = training_steps(model, objective(), preset, Budget(steps=60), np.random.default_rng(1))
    assert last["accuracy"] > 0.55  # a third by chance, and of noise alone nobody tells more


@pytest.fixture
def pictures(tmp_path):
    """A folder of two kinds of pictures, 8 x 8."""
    for i, kind in enumerate(("dark", "light")):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for j in range(3):
            Image.new("RGB", (8, 8), (30 * j + 150 * i,) * 3).save(tmp_path / "set" / kind / f"{j}.png")
    return tmp_path / "set"


def test_its_folder_leads_the_pipeline(tmp_path, pictures):
    tiny_pipeline.make(record={"dataset": str(pictures), "size": 8}).save_pretrained(tmp_path / "pipe")
    train_classifier(tmp_path / "pipe", tmp_path / "clf", steps=3, config=CONFIG)
    classifier = LatentClassifier.from_pretrained(tmp_path / "clf")
    assert classifier.config["classes"] == ["dark", "light"] and classifier.config["in_channels"] == 2
    record = json.loads((tmp_path / "clf" / "minild.json").read_text())
    assert record["steps"] == 3 and 0 <= record["accuracy"] <= 1 and record["dataset"] == str(pictures)
    drawn = load(tmp_path / "pipe").class_to_image("light", steps=2, classifier=tmp_path / "clf")
    assert drawn.shape == (1, 8, 8, 3)
    with pytest.raises(UserError, match="holds a model already"):
        train_classifier(tmp_path / "pipe", tmp_path / "clf", steps=3)


def test_it_leads_no_other_latents(tmp_path, pictures):
    """Of another autoencoder with as many channels; the same in another precision, and an older folder, are well."""
    pipe = tiny_pipeline.make(record={"dataset": str(pictures), "size": 8})
    pipe.save_pretrained(tmp_path / "pipe")
    train_classifier(tmp_path / "pipe", tmp_path / "clf", steps=1, config=CONFIG)
    asked = {"labels": "light", "steps": 1, "classifier": tmp_path / "clf"}
    pipe.save_pretrained(tmp_path / "half", "float16")
    for same in (load(tmp_path / "pipe", "float16"), load(tmp_path / "half"), load(tmp_path / "half", "float64")):
        assert same.class_to_image(**asked).shape == (1, 8, 8, 3)
    with pytest.raises(UserError, match=f"clf is a classifier of another autoencoder's latents: it .* {tmp_path}/pipe"):
        tiny_pipeline.make(seed=1).class_to_image(**asked)
    pipe.schedule = NoiseSchedule({"beta_schedule": "squaredcos_cap_v2"})
    with pytest.raises(UserError, match="clf is a classifier of latents of another noise schedule: it was trained for"):
        pipe.class_to_image(**asked)
    pipe.schedule = NoiseSchedule()
    pipe.vae.config["scaling_factor"] *= 2
    with pytest.raises(UserError, match="another autoencoder's latents"):
        pipe.class_to_image(**asked)
    path = tmp_path / "clf" / "minild.json"
    record = json.loads(path.read_text())
    for broken in ([], {}, {"latents": 3, "alphas_cumprod": "none"}):
        path.write_text(json.dumps(record | {"purpose": broken}))
        with pytest.raises(UserError, match=r"clf/minild.json cannot be used|another autoencoder's latents"):
            pipe.class_to_image(**asked)
    path.write_text(json.dumps({name: record[name] for name in record.keys() - {"purpose"}}))
    assert pipe.class_to_image(**asked).shape == (1, 8, 8, 3)


def test_latents_of_another_width_than_the_encoders(tmp_path, pictures):
    """A codebook's, which the encoder's are projected to."""
    pipe = tiny_pipeline.make_vq()
    pipe.record = {"dataset": str(pictures), "size": 8}
    pipe.save_pretrained(tmp_path / "pipe")
    train_classifier(tmp_path / "pipe", tmp_path / "clf", steps=2, config=CONFIG)
    drawn = load(tmp_path / "pipe").class_to_image("light", steps=2, classifier=tmp_path / "clf")
    assert drawn.shape == (1, 8, 8, 3)


def test_of_no_steps_no_accuracy_is_told(tmp_path, pictures):
    tiny_pipeline.make(record={"dataset": str(pictures), "size": 8}).save_pretrained(tmp_path / "pipe")
    train_classifier(tmp_path / "pipe", tmp_path / "clf", minutes=1e-9, config=CONFIG)
    record = json.loads((tmp_path / "clf" / "minild.json").read_text())
    assert record["steps"] == 0 and "accuracy" not in record


def test_a_rectified_flow_is_refused(tmp_path, pictures):
    pipe = tiny_pipeline.make(record={"dataset": str(pictures), "size": 8})
    pipe.schedule, pipe.sampler = FlowSchedule(), "flow-euler"
    pipe.save_pretrained(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a rectified flow, which no classifier leads: name a pipeline of another"):
        train_classifier(tmp_path / "pipe", tmp_path / "clf", steps=2, config=CONFIG)
    assert not (tmp_path / "clf").exists()


def test_a_pipeline_that_does_not_say_its_data_is_refused(tmp_path):
    tiny_pipeline.make().save_pretrained(tmp_path / "pipe")
    with pytest.raises(UserError, match="does not say what it was trained on: give a dataset"):
        train_classifier(tmp_path / "pipe", tmp_path / "clf", steps=3)
    assert not (tmp_path / "clf").exists()
