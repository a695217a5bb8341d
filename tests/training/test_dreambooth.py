"""train_dreambooth: the loss with prior preservation, what trains, the folder it writes; and what it refuses."""

import json

import numpy as np
import pytest
import tiny_pipeline

from minild.errors import UserError
from minild.pipelines import load
from minild.pipelines.info import describe
from minild.training import Replicas, dreambooth, train_dreambooth, tuning
from minild.training.conditioning import Frozen
from minild.training.dreambooth import PriorPreservation
from minild.training.latent_diffusion import Denoiser

THING, KIND = tiny_pipeline.CAPTIONS


@pytest.fixture
def sheets(monkeypatch):
    """What would be on the sheets, which are not drawn: (name of the file, its labels)."""
    shown = []
    monkeypatch.setattr(dreambooth, "draw_sheet", lambda path, _, labels, **more: shown.append((path.name, labels)))
    return shown


def objectives(pipe, rng, weight=0.4):
    lessons = [tuning.Lesson(pipe, rng.integers(0, 256, (n, 8, 8, 3), np.uint8), [(text,)] * n, 8)
               for n, text in ((3, THING), (5, KIND))]  # fmt: skip
    thing, kind = map(tuning.objective_of, lessons)
    return thing, kind, PriorPreservation(thing, kind, weight)


def gradients(denoiser, objective, batch):
    denoiser.zero_grad()
    losses, cache = objective.forward(denoiser, batch)
    objective.backward(1.0, cache)
    return losses, {name: parameter.grad.copy() for name, parameter in denoiser.named_parameters()}


def test_the_loss_is_the_sum_of_both(rng):
    pipe = tiny_pipeline.make()
    denoiser = Denoiser(pipe.unet, pipe.text_encoder)
    thing, kind, both = objectives(pipe, rng)
    batch = both.batch(rng, 4, 0.5)
    assert all(len(x) == 4 for x in batch)
    losses, ours = gradients(denoiser, both, batch)
    first, its = gradients(denoiser, thing, batch[: len(batch) // 2])
    second, others = gradients(denoiser, kind, batch[len(batch) // 2 :])
    assert float(losses["loss"]) == pytest.approx(float(first["loss"]) + 0.4 * float(second["loss"]), rel=1e-6)
    assert float(losses["prior"]) == float(second["loss"])
    largest = max(np.abs(gradient).max() for gradient in ours.values())
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, its[name] + 0.4 * others[name], atol=1e-5 * largest)


def test_either_half_has_pictures_and_captions_of_its_own(rng):
    pipe = tiny_pipeline.make()
    *_, both = objectives(pipe, rng)
    batch = both.batch(rng, 6, 0.5)
    half = len(batch) // 2
    ids = pipe.tokenizer.encode([THING, KIND])
    assert (batch[half - 1] == ids[0]).all() and (batch[-1] == ids[1]).all()
    assert not np.array_equal(batch[0], batch[half]) and not np.array_equal(batch[1], batch[half + 1])


def test_replicas_have_the_gradient_of_one(rng):
    pipe = tiny_pipeline.make()
    denoiser, (_, _, both) = Denoiser(pipe.unet, Frozen(pipe.text_encoder)), objectives(pipe, rng)
    batch = both.batch(rng, 5, 0.5)
    _, expected = gradients(denoiser, both, batch)
    expected = np.concatenate([gradient.ravel() for gradient in expected.values()])
    with Replicas(denoiser, both, 2, processes=False) as replicas:
        denoiser.zero_grad()
        replicas.gradient(batch)
        found = replicas.gradients[0].gather()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def changed(before, after, part):
    ours, its = (getattr(pipe, part).state_dict() for pipe in (before, after))
    return any(not np.array_equal(ours[name], its[name]) for name in ours)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_pipeline_that_knows_the_thing(tmp_path, model, bare, sheets, text_encoder):
    before, output = load(model), tmp_path / "out"
    settings = {"batch_size": 2, "learning_rate": 0.01, "steps": 3, "text_encoder": text_encoder}
    assert train_dreambooth(model, bare, output, THING, KIND, class_pictures=3, **settings) == 3
    after = load(output)
    assert changed(before, after, "unet") and changed(before, after, "text_encoder") == text_encoder
    assert not changed(before, after, "vae")
    assert f"learnt since  {THING!r} by DreamBooth, beside {KIND!r}" in describe(output)
    assert sheets[0] == ("class-pictures.png", [KIND] * 3) and sheets[1][1] == [THING] * 4 + [KIND] * 4
    drawn = [pipe.text_to_image(THING, steps=2) for pipe in (before, after)]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-4


def test_what_does_not_train_holds_no_gradient(tmp_path, model, bare, sheets, monkeypatch):
    held = []

    def tune(name, lesson, tuned, *arguments, **settings):
        steps = tuning.tune(name, lesson, tuned, *arguments, **settings)
        held.append((lesson.pipe, tuned))
        return steps

    monkeypatch.setattr(dreambooth, "tune", tune)
    train_dreambooth(model, bare, tmp_path / "out", THING, steps=1, batch_size=1, recomputing=True)
    [(pipe, tuned)] = held
    assert all(name.startswith("unet.") for name, _ in tuned.named_parameters())
    assert tuned.parameter_count() == pipe.unet.parameter_count()
    assert all(p.grad is None for part in (pipe.vae, pipe.text_encoder) for p in part.parameters())
    assert all(p.grad is not None for p in pipe.unet.parameters())


def test_the_class_pictures_are_those_of_the_model_before(tmp_path, model, bare, monkeypatch, sheets):
    seen = []

    def prior(thing, kind, weight):
        seen.append((kind, weight))
        return PriorPreservation(thing, kind, weight)

    monkeypatch.setattr(dreambooth, "PriorPreservation", prior)
    settings = {"class_pictures": 2, "prior_weight": 0.3, "steps": 1, "batch_size": 1, "seed": 5}
    train_dreambooth(model, bare, tmp_path / "out", THING, KIND, **settings)
    pipe = load(model)
    pictures = pipe.text_to_image([KIND] * 2, seed=5)
    expected = tuning.objective_of(tuning.Lesson(pipe, np.round(255 * pictures).astype(np.uint8), [(KIND,)] * 2, 8))
    [(kind, weight)] = seen
    np.testing.assert_array_equal(kind.means, expected.means)
    assert weight == 0.3


def test_pictures_are_called_by_the_prompt_whatever_they_are_called(tmp_path, model, bare, monkeypatch, sheets):
    lines = [json.dumps({"file_name": path.name, "text": "nothing"}) for path in bare.glob("*.png")]
    (bare / "metadata.jsonl").write_text("\n".join(lines))
    lessons = []
    monkeypatch.setattr(dreambooth, "tune", lambda name, lesson, *arguments, **settings: lessons.append(lesson))
    train_dreambooth(model, bare, tmp_path / "out", THING)
    assert lessons[0].captions == [(THING,)] * 3


def test_mistakes_are_told_before_the_training(tmp_path, model, bare):
    good = {"prompt": THING}
    for settings, message in (
        ({"prompt": " "}, "no prompt: say what the pictures show"),
        (good | {"class_prompt": " "}, "the class prompt is empty"),
        (good | {"class_pictures": 3}, "need a class prompt"),
        (good | {"prior_weight": 1.0}, "need a class prompt"),
        (good | {"class_prompt": KIND, "class_pictures": 0}, "class pictures: expected a whole number from 1, got 0"),
        (good | {"class_prompt": KIND, "prior_weight": -1.0}, "prior weight: expected a number from 0, got -1"),
        (good | {"class_prompt": KIND, "prior_weight": float("nan")}, "prior weight: expected a number from 0"),
        (good | {"size": 7}, "size 7 is not divisible by 2"),
    ):
        with pytest.raises(UserError, match=message):
            train_dreambooth(model, bare, tmp_path / "o", steps=1, **settings)
    with pytest.raises(UserError, match="holds a model already"):
        train_dreambooth(model, bare, model, THING)
    with pytest.raises(UserError, match="expected the name of a folder"):
        train_dreambooth(model, bare, tmp_path / "o.safetensors", THING)
    with pytest.raises(UserError, match="no data set"):
        train_dreambooth(model, tmp_path / "nowhere", tmp_path / "o", THING)
    assert not (tmp_path / "o").exists()
