"""train_finetune: what learns and how, the folder it writes; and what it refuses."""

import json

import numpy as np
import pytest
import tiny_pipeline

from minild.errors import UserError
from minild.pipelines import load
from minild.pipelines.info import describe
from minild.training import PRESETS, finetune, train_finetune, tuning
from minild.training.presets import EMOJI

RED, _ = tiny_pipeline.CAPTIONS


@pytest.fixture(autouse=True)
def no_sheets(monkeypatch):
    """No sheets, which take longer than a few steps."""
    monkeypatch.setattr(tuning, "draw_sheet", lambda *arguments, **settings: None)


def changed(before, after, part):
    ours, its = (getattr(pipe, part).state_dict() for pipe in (before, after))
    return any(not np.array_equal(ours[name], its[name]) for name in ours)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_pipeline_that_went_on_learning(tmp_path, model, bare, text_encoder):
    before, output = load(model), tmp_path / "out"
    settings = {"batch_size": 2, "learning_rate": 0.01, "steps": 3, "text_encoder": text_encoder}
    assert train_finetune(model, bare, output, RED, **settings) == 3
    after = load(output)
    assert changed(before, after, "unet") and changed(before, after, "text_encoder") == text_encoder
    assert not changed(before, after, "vae")
    what = f"{bare} by fine-tuning" + (", its text encoder too" if text_encoder else "")
    assert f"learnt since  {what}" in describe(output)
    assert np.abs(before.text_to_image(RED, steps=2) - after.text_to_image(RED, steps=2)).max() > 1e-4


def settings_of(monkeypatch, model, dataset, output, **settings):
    """What `tune` is given of a fine-tuning: the lesson's objective, and its settings."""
    asked = []

    def tune(name, lesson, denoiser, write, output, objective, **settings):
        asked.append((objective(), settings))

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "tune", tune)
        train_finetune(model, dataset, output, RED, **settings)
    return asked[0]


def test_small_pictures_are_learnt_as_their_preset_says(tmp_path, model, bare, monkeypatch):
    objective, settings = settings_of(monkeypatch, model, bare, tmp_path / "o", steps=5)
    assert (settings["batch_size"], settings["optimizer"]) == (EMOJI.diffusion.batch_size, "adamw")
    assert settings["learning_rate"] == pytest.approx(2 / 3 * EMOJI.diffusion.learning_rate)
    nothing = load(model).tokenizer.encode([""])[0]
    *_, ids = objective.batch(np.random.default_rng(0), 2000, 0.5)
    assert (ids == nothing).all(axis=1).mean() == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("name", ["shapes", "scenes"])
def test_scenes_and_shapes_are_learnt_by_muon(tmp_path, model, bare, monkeypatch, name):
    monkeypatch.setitem(PRESETS, str(bare), PRESETS[name])
    assert settings_of(monkeypatch, model, bare, tmp_path / "o")[1]["optimizer"] == "muon"


def test_large_pictures_are_learnt_one_by_one(tmp_path, model, bare, monkeypatch):
    monkeypatch.setattr(finetune, "SMALL", 4)
    _, settings = settings_of(monkeypatch, model, bare, tmp_path / "o")
    assert (settings["batch_size"], settings["learning_rate"], settings["optimizer"]) == (1, 1e-5, "adamw")


def test_the_text_encoder_holds_no_gradient_where_it_does_not_learn(tmp_path, model, bare, monkeypatch):
    held = []

    def tune(name, lesson, tuned, *arguments, **settings):
        held.append((lesson.pipe, tuned))
        return tuning.tune(name, lesson, tuned, *arguments, **settings)

    monkeypatch.setattr(finetune, "tune", tune)
    train_finetune(model, bare, tmp_path / "out", RED, steps=1, batch_size=1, recomputing=True)
    [(pipe, tuned)] = held
    assert tuned.parameter_count() == pipe.unet.parameter_count()
    assert all(p.grad is None for part in (pipe.vae, pipe.text_encoder) for p in part.parameters())
    assert all(p.grad is not None for p in pipe.unet.parameters())


def test_the_new_pipeline_draws_the_size_that_it_learnt(tmp_path, model, bare):
    assert load(model).default_size == (8, 8)
    train_finetune(model, bare, tmp_path / "out", RED, steps=1, batch_size=1, size=12)
    assert load(tmp_path / "out").default_size == (12, 12)


def test_a_sampler_that_is_not_supported_does_not_end_the_training(tmp_path, model, bare, monkeypatch):
    """It is the folder's own; the sheets are drawn by another one."""
    sheets = []
    monkeypatch.setattr(tuning, "draw_sheet", lambda path, pictures, captions: sheets.append(len(pictures)))
    config = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    config["_class_name"] = "CMStochasticIterativeScheduler"
    (model / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    assert load(model).sampler is None
    assert train_finetune(model, bare, tmp_path / "out", RED, steps=2, batch_size=1) == 2
    assert sheets and changed(load(model), load(tmp_path / "out"), "unet")


def test_captions_that_are_cut_off_are_told(tmp_path, model, bare, monkeypatch, capsys):
    settings_of(monkeypatch, model, bare, tmp_path / "o")
    assert not capsys.readouterr().err
    long = " ".join([RED] * 20)
    monkeypatch.setattr(finetune, "tune", lambda *arguments, **settings: None)
    train_finetune(model, bare, tmp_path / "o", long)
    [line] = capsys.readouterr().err.splitlines()
    fit = load(model).tokenizer.max_length
    assert line.startswith(f"minild: 1 of 1 captions are longer than the {fit} tokens that the model reads: of '{RED} ")
    assert line.endswith(" is cut off")


def test_each_learns_by_other_random_numbers(tmp_path, model, bare, monkeypatch):
    """A second fine-tuning does not repeat the first, nor the first the training before it, which had (seed, 1)."""
    seeds = []
    learner = tuning.Learner
    monkeypatch.setattr(tuning, "Learner", lambda *arguments: seeds.append(arguments[-1]) or learner(*arguments))
    for start, output in ((model, tmp_path / "one"), (tmp_path / "one", tmp_path / "two")):
        train_finetune(start, bare, output, RED, steps=1, batch_size=1, seed=4)
    assert seeds == [(4, 2, 1), (4, 2, 2)]


def test_the_memory_is_looked_at_before_the_pictures_are_encoded(tmp_path, model, bare, monkeypatch):
    def refuse(*arguments):
        raise UserError("too much")

    monkeypatch.setattr(tuning, "require_memory", refuse)
    monkeypatch.setattr(tuning, "encode_pictures", lambda *arguments: pytest.fail("encoded"))
    with pytest.raises(UserError, match="too much"):
        train_finetune(model, bare, tmp_path / "o", RED, steps=1)


def test_a_model_that_words_do_not_lead_is_refused(tmp_path, bare):
    tiny_pipeline.make_led("class", ["red", "blue"], num_class_embeds=3).save_pretrained(tmp_path / "led")
    with pytest.raises(UserError, match="fine-tuning is for a model that words alone lead"):
        train_finetune(tmp_path / "led", bare, tmp_path / "o", RED)


def test_mistakes_are_told_before_the_training(tmp_path, model, bare):
    with pytest.raises(UserError, match="holds a model already"):
        train_finetune(model, bare, model)
    with pytest.raises(UserError, match="expected the name of a folder"):
        train_finetune(model, bare, tmp_path / "o.safetensors")
    with pytest.raises(UserError, match="no data set"):
        train_finetune(model, tmp_path / "nowhere", tmp_path / "o")
    with pytest.raises(UserError, match="size 7 is not divisible by 2"):
        train_finetune(model, bare, tmp_path / "o", RED, size=7)
    assert not (tmp_path / "o").exists()
