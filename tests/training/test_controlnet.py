"""train_controlnet: what trains and what does not, its gradients, the folder it writes; and what it refuses."""

import numpy as np
import pytest
import tiny_pipeline

from minild.data.outlines import outlines
from minild.errors import UserError
from minild.models import Condition, Conditioned, ControlNetModel
from minild.pipelines import load
from minild.training import AdamW, Budget, StagePreset, controlnet, train_controlnet, training_steps, tuning
from minild.training.conditioning import Frozen
from minild.training.controlnet import Led, Outlines, controlnet_parameters
from minild.training.latent_diffusion import Denoiser
from minild.training.tuning import Tuned, recompute
from training.small import drawn


@pytest.fixture(autouse=True)
def no_sheets(monkeypatch):
    monkeypatch.setattr(controlnet, "draw_sheet", lambda *arguments, **settings: None)


def led(recomputing=False):
    """A tiny pipeline, and its Denoiser with a ControlNet, as the training has it; nothing of that is zero."""
    pipe = tiny_pipeline.make()
    own = drawn(ControlNetModel.from_unet(pipe.unet, f=2))
    pipe.unet.freeze()
    if recomputing:
        recompute(pipe.unet)
        recompute(own)
    return pipe, Led(pipe.unet, Frozen(pipe.text_encoder), own)


@pytest.mark.parametrize("recomputing", [False, True])
def test_the_gradients_are_those_of_the_whole(rng, recomputing):
    """The short backward is that of Conditioned, which the checker looks at in tests/models."""
    pipe, denoiser = led(recomputing)
    x, t, ids = rng.standard_normal((2, 4, 6, 2), np.float32), np.array([37, 612]), rng.integers(500, size=(2, 6))
    control, dy = rng.random((2, 8, 12, 3), np.float32), rng.standard_normal((2, 4, 6, 2), np.float32)
    y, cache = denoiser.forward(x, t, Condition(ids, control=control))
    assert denoiser.backward(dy, cache) == (None, None, None)
    whole = Conditioned(tiny_pipeline.make().unet, drawn(ControlNetModel.from_unet(pipe.unet, f=2)))
    expected, cache = whole.forward(x, t, Condition(pipe.text_encoder(ids), control=control))
    whole.backward(dy, cache)
    np.testing.assert_array_equal(y, expected)
    ours, theirs = dict(denoiser.controlnet.named_parameters()), dict(whole.controlnet.named_parameters())
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(parameter.grad).max() for parameter in theirs.values())
    for name, parameter in ours.items():
        np.testing.assert_allclose(parameter.grad, theirs[name].grad, atol=1e-6 * largest)


def test_only_the_controlnet_has_gradients_and_optimiser_state(rng):
    pipe, denoiser = led()
    whole = Tuned(denoiser, controlnet_parameters)
    assert all(name.startswith("controlnet.") for name, _ in whole.named_parameters())
    assert AdamW(whole).m.size == denoiser.controlnet.parameter_count()
    before = pipe.unet.state_dict()
    pictures, captions = rng.integers(0, 256, (4, 8, 8, 3), np.uint8), [(tiny_pipeline.CAPTIONS[0],)] * 4
    lesson = tuning.Lesson(pipe, pictures, captions, 8)
    objective, preset = tuning.objective_of(lesson, 0.5, [Outlines(pictures)]), StagePreset(1e-3, 4)
    list(training_steps(whole, objective, preset, Budget(steps=2), rng))
    for model in (pipe.unet, pipe.text_encoder, pipe.vae):
        assert all(parameter.grad is None for parameter in model.parameters())
    for name, array in pipe.unet.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_batch_has_the_outlines_of_its_pictures(rng):
    pipe = tiny_pipeline.make()
    pictures = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
    captions = [(f"{i} circle",) for i in range(5)]
    objective = tuning.objective_of(tuning.Lesson(pipe, pictures, captions, 8), 0.5, [Outlines(pictures)])
    assert objective.condition.fields == ["context", "control"]
    *_, ids, control = objective.batch(rng, 200, 0.5)
    assert control.shape == (200, 8, 8, 3) and control.dtype == np.float32
    rows = [int(np.flatnonzero((pipe.tokenizer.encode([c[0] for c in captions]) == row).all(axis=1))[0])
            if (row != pipe.tokenizer.encode([""])[0]).any() else None for row in ids]  # fmt: skip
    assert 60 < rows.count(None) < 140  # half of the captions are left out, and no outline
    for row, picture in zip(rows, control):
        if row is not None:
            np.testing.assert_array_equal(picture, outlines(pictures[row : row + 1])[0] / 255)
    assert (control.reshape(200, -1).sum(axis=1) > 0).all()


def test_half_of_the_captions_are_left_out(tmp_path, model, bare, monkeypatch):
    """As published."""
    monkeypatch.setattr(controlnet, "tune", lambda *arguments, **settings: arguments[5])
    objective = train_controlnet(model, bare, tmp_path / "net", prompt="a red circle")
    assert objective().condition.dropout == 0.5


def test_a_folder_that_leads_the_pipeline(tmp_path, model, bare):
    output = tmp_path / "net"
    settings = {"prompt": "a red circle", "batch_size": 2, "learning_rate": 0.05}
    assert train_controlnet(model, bare, output, steps=4, **settings) == 4
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json", "diffusion_pytorch_model.safetensors", "minild.json", "training"
    ]  # fmt: skip
    pipe, control = load(model), np.zeros((8, 8, 3), np.uint8)
    control[2:6, 2:6] = 255
    alone = pipe.text_to_image("a red circle", steps=2)
    ours = pipe.text_to_image("a red circle", steps=2, controlnet=output, control=control)
    assert np.abs(ours - alone).max() > 1e-4
    again = tmp_path / "again"
    train_controlnet(model, bare, again, steps=4, recomputing=True, **settings)
    same = pipe.text_to_image("a red circle", steps=2, controlnet=again, control=control)
    np.testing.assert_allclose(same, ours, atol=1e-4)


def test_it_learns(rng):
    """One batch, from a copy whose residuals are zero: the first loss is that of the pipeline itself."""
    pipe, denoiser = led()
    denoiser.controlnet = ControlNetModel.from_unet(pipe.unet, f=2)
    pictures = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    lesson = tuning.Lesson(pipe, pictures, [("a circle",)] * 4, 8)
    task = tuning.objective_of(lesson, 0.5, [Outlines(pictures)])
    batch = task.batch(rng, 4, 0.5)
    task.batch = lambda *arguments: batch
    whole = Tuned(denoiser, controlnet_parameters)
    steps = training_steps(whole, task, StagePreset(1e-2, 4), Budget(steps=25), rng)
    losses = [float(metrics["loss"]) for _, metrics in steps]
    assert losses[0] == float(task.forward(Denoiser(pipe.unet, pipe.text_encoder), batch)[0]["loss"])
    assert losses[-1] < 0.95 * losses[0]


def test_mistakes_are_told_before_the_training(tmp_path, model, bare):
    (tmp_path / "taken").write_text("a file")
    for arguments, settings, message in (
        ((model, bare, tmp_path / "o"), {}, "no picture has a caption"),
        ((model, None, tmp_path / "o"), {}, "no pictures: give a folder"),
        ((tmp_path / "nothing", bare, tmp_path / "o"), {"prompt": "a"}, "is no pipeline"),
        ((model, bare, tmp_path / "o.safetensors"), {"prompt": "a"}, "expected the name of a folder"),
        ((model, bare, tmp_path / "taken"), {"prompt": "a"}, "cannot write"),
        ((model, bare, model), {"prompt": "a"}, "holds a model already"),
        ((model, bare, bare), {"prompt": "a"}, "lies among the pictures"),
        ((model, bare, tmp_path / "o"), {"prompt": "a", "size": 7}, "size 7 is not divisible by 2"),
    ):
        with pytest.raises(UserError, match=message):
            train_controlnet(*arguments, steps=1, **settings)
    assert not (tmp_path / "o").exists()
