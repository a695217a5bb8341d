"""train_lora: what trains and what does not, the file it writes, that it learns; and what it refuses."""

import json

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import Condition, UNet2DConditionModel
from minild.models.lora import add_updates
from minild.pipelines import load
from minild.training import AdamW, Budget, Replicas, StagePreset, train_lora, training_steps, tuning
from minild.training.conditioning import Frozen
from minild.training.latent_diffusion import Denoiser
from minild.training.lora import NAME, lora_parameters
from minild.training.tuning import Tuned, recompute

pytestmark = pytest.mark.usefixtures("no_sheets")


def tuned(text_encoder=False, dtype="float32"):
    """A Denoiser of random updates, as its training sees it."""
    pipe, rng = tiny_pipeline.make(), np.random.default_rng(4)
    models = {"unet": pipe.unet.astype(dtype)}
    models |= {"text_encoder": pipe.text_encoder.astype(dtype)} if text_encoder else {}
    for part, model in models.items():
        add_updates(model, part, NAME, 2, 3.0, rng)
    encoder = pipe.text_encoder if text_encoder else Frozen(pipe.text_encoder)
    whole = Tuned(Denoiser(pipe.unet, encoder), lora_parameters)
    for parameter in whole.parameters():
        parameter.data = rng.standard_normal(parameter.shape).astype(dtype)
    return pipe, whole


class OfLatents(Tuned):
    """For the checker, of arrays: x alone has a gradient of its own, of those that it looks at."""

    def forward(self, x, t, ids):
        return super().forward(x, t, Condition(context=ids))

    def backward(self, dy, cache):
        return super().backward(dy, cache)[:2]


@pytest.mark.parametrize("recomputing", [False, True])
def test_gradients_by_differences(rng, recomputing):
    """Through the U-Net and the text encoder, into A and B alone."""
    _, whole = tuned(text_encoder=True, dtype="float64")
    if recomputing:
        recompute(whole.unet)
    ids = rng.integers(500, size=(2, 6))
    x, t = rng.standard_normal((2, 4, 6, 2)), np.array([3.7, 612.2])
    check_module(OfLatents(*whole.held, lora_parameters), {"x": x, "t": t, "ids": ids}, samples=1)


def test_only_the_updates_have_gradients_and_optimiser_state():
    pipe, whole = tuned()
    names = [name for name, _ in whole.named_parameters()]
    assert len(names) == 2 * 8 * 4 and all(".attn" in name and ".lora_" in name for name in names)
    assert all(parameter.frozen and parameter.grad is None for parameter in pipe.unet.parameters())
    optimizer = AdamW(whole)
    assert optimizer.m.size == whole.parameter_count() < pipe.unet.parameter_count() / 10


def objective(pipe, rng, count=6):
    pictures, captions = rng.integers(0, 256, (count, 8, 8, 3), np.uint8), [(tiny_pipeline.CAPTIONS[0],)] * count
    return tuning.objective_of(tuning.Lesson(pipe, pictures, captions, 8))


def test_a_replica_owns_its_gradients():
    _, whole = tuned(text_encoder=True)
    twin = whole.replica()
    for (name, mine), (its_name, its) in zip(whole.named_parameters(), twin.named_parameters(), strict=True):
        assert name == its_name and mine is not its and mine.data is its.data


@pytest.mark.parametrize("processes", [False, True])
def test_replicas_have_the_gradient_of_one(rng, processes):
    pipe, whole = tuned()
    task = objective(pipe, rng)
    batch = task.batch(rng, 5, 0.5)
    losses, cache = task.forward(whole, batch)
    task.backward(1.0, cache)
    expected = np.concatenate([parameter.grad.ravel() for parameter in whole.parameters()])
    with Replicas(whole, task, 2, processes) as replicas:
        whole.zero_grad()
        assert float(replicas.gradient(batch)["loss"]) == pytest.approx(float(losses["loss"]), rel=1e-5)
        found = replicas.gradients[0].gather()
    # These random weights make much of rounding, which differs with the rows of a batch: by a few thousandths here.
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_a_file_that_leads_the_pipeline(tmp_path, model, bare):
    file, before = tmp_path / "red.safetensors", load(model)
    assert train_lora(model, bare, file, prompt="a red circle", steps=3, rank=2, alpha=5, text_encoder=True) == 3
    state = load_file(file)
    assert state["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"].shape == (2, 8)
    assert state["text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight"].shape == (8, 2)
    assert len(state) == 2 * (8 * 4 + 4)
    with safe_open(file, "np") as opened:
        said = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert said["unet.r"] == 2 and said["text_encoder.lora_alpha"] == 5
    assert said["unet.target_modules"] == ["to_k", "to_out.0", "to_q", "to_v"]
    after = load(model)
    after.load_lora(file)
    drawn = [pipe.text_to_image("a red circle", steps=2) for pipe in (before, after)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0
    lines = (tmp_path / "red-training" / "metrics.jsonl").read_text()
    assert lines == "" or json.loads(lines.splitlines()[0])["stage"] == "lora"


def test_recomputing_changes_nothing(tmp_path, model, bare):
    states = []
    for recomputing in (False, True):
        file = tmp_path / f"{recomputing}.safetensors"
        train_lora(model, bare, file, prompt="a red circle", steps=3, batch_size=4, recomputing=recomputing)
        states.append(load_file(file))
    assert states[0]["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.weight"].any()
    for key, array in states[0].items():
        np.testing.assert_allclose(array, states[1][key], rtol=1e-5, atol=1e-7, err_msg=key)


def test_it_learns(rng):
    """One batch, from updates that are nothing at first; the model itself stays what it is."""
    pipe = tiny_pipeline.make()
    add_updates(pipe.unet, "unet", NAME, 2, None, rng)
    whole, task = Tuned(Denoiser(pipe.unet, Frozen(pipe.text_encoder)), lora_parameters), objective(pipe, rng)
    batch, weights = task.batch(rng, 4, 0.5), pipe.unet.state_dict()
    task.batch = lambda *arguments: batch
    preset = StagePreset(learning_rate=2e-2, batch_size=4)
    losses = [float(step["loss"]) for _, step in training_steps(whole, task, preset, Budget(steps=25), rng)]
    same = tiny_pipeline.make()
    assert losses[0] == float(task.forward(Denoiser(same.unet, same.text_encoder), batch)[0]["loss"])
    assert losses[-1] < 0.95 * losses[0]
    for name, array in pipe.unet.state_dict().items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


def test_pictures_with_captions_keep_them(tmp_path, model, monkeypatch):
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "set" / f"{name}.png")
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a green star"}\n')
    lesson = tuning.open_lesson(model, tmp_path / "set", tmp_path / "o.safetensors", "a blue square")
    assert sorted(lesson.captions) == [("a blue square",), ("a green star",)]
    lesson = tuning.open_lesson(model, tmp_path / "set", tmp_path / "o.safetensors")
    assert lesson.captions == [("a green star",)]


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path, model, bare):
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").write_text("a file")
    file, settings = tmp_path / "new" / "o.safetensors", {"steps": 1}
    for arguments, more, message in (
        ((model, tmp_path / "nowhere", file), {}, "no data set"),
        ((model, tmp_path / "empty", file), {"prompt": "a"}, "holds no pictures"),
        ((model, bare, file), {}, "no picture has a caption"),
        ((model, None, file), {}, "no pictures: give a folder"),
        ((tmp_path / "nothing", bare, file), {"prompt": "a"}, "is no pipeline"),
        ((model, bare, tmp_path / "o.bin"), {"prompt": "a"}, "ends in .safetensors"),
        ((model, bare, tmp_path / "taken" / "o.safetensors"), {"prompt": "a"}, "cannot write"),
        ((model, bare, bare / "o.safetensors"), {"prompt": "a"}, "lies among the pictures"),
        ((model, bare, bare / "new" / "o.safetensors"), {"prompt": "a"}, "lies among the pictures"),
        ((model, bare, file), {"prompt": "a", "size": 7}, "size 7 is not divisible by 2"),
        ((model, bare, file), {"prompt": "a", "rank": 0}, "rank: expected a whole number from 1"),
    ):
        with pytest.raises(UserError, match=message):
            train_lora(*arguments, **settings, **more)
        assert not file.parent.exists()


def test_a_model_that_more_than_words_lead_is_refused(tmp_path, bare):
    pipe = tiny_pipeline.make(record={"condition": "text+low resolution"})
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | {"in_channels": 5})
    pipe.save_pretrained(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"words alone lead; what leads this is text\+low resolution"):
        train_lora(tmp_path / "pipe", bare, tmp_path / "o.safetensors", prompt="a", steps=1)
