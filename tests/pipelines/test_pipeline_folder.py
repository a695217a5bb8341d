"""Pipeline folders: written as the reference has them, read back bit for bit, refused in one line where broken."""

import json
import os
import shutil
from functools import partial

import numpy as np
import pytest
import tiny_pipeline
from killed import killed_before
from safetensors.numpy import load_file, save_file

from minild import pipelines
from minild.diffusion import NoiseSchedule
from minild.errors import UserError
from minild.models import UNet2DConditionModel
from minild.pipelines import folder as folder_module
from minild.pipelines.info import describe

MODELS = ("vae", "text_encoder", "unet")


@pytest.fixture
def folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_saved_pipeline_reads_back_bit_for_bit(pipe, folder):
    again = pipelines.load(folder)
    for part in MODELS:
        state, expected = getattr(again, part).state_dict(), getattr(pipe, part).state_dict()
        assert state.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(state[name], expected[name])
        assert getattr(again, part).config == getattr(pipe, part).config
    assert again.record == tiny_pipeline.RECORD
    assert again.schedule.config == pipe.schedule.config
    prompt = tiny_pipeline.CAPTIONS[0]
    np.testing.assert_array_equal(again.text_to_image(prompt, steps=2), pipe.text_to_image(prompt, steps=2))


def test_the_folder_is_a_stable_diffusion_pipeline_of_the_reference(folder):
    assert json.loads((folder / "model_index.json").read_text()) == {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.40.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    assert json.loads((folder / "scheduler" / "scheduler_config.json").read_text()) == {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
        "prediction_type": "epsilon",
        "clip_sample": False,
    }
    assert not list(folder.rglob("*.partial"))


def test_a_unet_with_no_middle_and_odd_latents_is_described_and_draws(tmp_path):
    """As others write it: null for the middle, a list of one width, a size of its own for either axis."""
    pipe = tiny_pipeline.make()
    said = {"mid_block_type": None, "cross_attention_dim": [8, 8], "sample_size": [5, 7]}
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config | said)
    pipe.save_pretrained(tmp_path)
    edit(tmp_path / "unet" / "config.json", **said)
    assert "10 x 14 pixels; latents 5 x 7 x 2, f = 2" in "\n".join(describe(tmp_path))
    pictures = pipelines.load(tmp_path).text_to_image(tiny_pipeline.CAPTIONS[0], steps=2)
    assert pictures.shape == (1, 10, 14, 3)
    np.testing.assert_array_equal(pictures, pipe.text_to_image(tiny_pipeline.CAPTIONS[0], steps=2))


def test_a_pipeline_without_a_record_writes_none(tmp_path):
    tiny_pipeline.make().save_pretrained(tmp_path)
    assert not (tmp_path / "minild.json").exists()
    assert pipelines.load(tmp_path).record == {}


def test_weights_stored_in_half_are_computed_in_single(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, dtype="float16")
    assert {a.dtype for a in load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors").values()} == {
        np.dtype("float16")
    }
    again = pipelines.load(tmp_path)
    assert again.dtype == np.float32
    name, expected = next(iter(pipe.unet.state_dict().items()))
    np.testing.assert_array_equal(again.unet.state_dict()[name], expected.astype(np.float16).astype(np.float32))


def test_weights_kept_in_half_on_the_host_are_computed_in_single(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, dtype="float16")
    half, single = pipelines.load(tmp_path, dtype="float16"), pipelines.load(tmp_path)
    for model in (half.vae, half.text_encoder, half.unet):
        assert {p.data.dtype for p in model.parameters()} == {np.dtype("float16")}
    assert half.dtype == np.float32
    drawn = [p.text_to_image("a red circle", steps=2) for p in (half, single)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize(
    "kind, sampler", [("DDIMScheduler", "ddim"), ("DDPMScheduler", "ddpm"), ("PNDMScheduler", "pndm")]
)
def test_the_schedulers_class_chooses_the_sampler(folder, kind, sampler):
    edit(folder / "scheduler" / "scheduler_config.json", _class_name=kind)
    assert pipelines.load(folder).sampler == sampler


def test_ddpm_is_kept(folder, tmp_path):
    edit(folder / "scheduler" / "scheduler_config.json", _class_name="DDPMScheduler")
    pipelines.load(folder).save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == "DDPMScheduler"
    assert "set_alpha_to_one" not in config
    assert json.loads((tmp_path / "again" / "model_index.json").read_text())["scheduler"][1] == "DDPMScheduler"


def test_fields_of_the_schedule(folder):
    file = folder / "scheduler" / "scheduler_config.json"
    edit(file, beta_end=0.0155, num_train_timesteps=500, steps_offset=0)
    schedule = pipelines.load(folder).schedule
    assert schedule.betas[-1] == pytest.approx(0.0155)
    assert schedule.timesteps(50)[-1] == 1  # an old file's offset of 0 counts as 1, as in the reference's pipelines
    file.write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    config = pipelines.load(folder).schedule.config
    assert (config["beta_start"], config["beta_end"], config["beta_schedule"]) == (0.0001, 0.02, "linear")
    assert config["set_alpha_to_one"] is True


def _remove(part):
    def damage(folder):
        for file in (folder / part).iterdir():
            file.unlink()
        (folder / part).rmdir()

    return damage


def _truncate(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _weights(change):
    def damage(folder):
        path = folder / "vae" / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path)

    return damage


def _config(part, name="config.json", **fields):
    return lambda folder: edit(folder / part / name, **fields)


DAMAGES = {
    "no tokenizer": (_remove("tokenizer"), "has no folder tokenizer"),
    "no scheduler": (_remove("scheduler"), "has no folder scheduler"),
    "no unet": (_remove("unet"), "has no folder unet"),
    "no config": (lambda folder: (folder / "vae" / "config.json").unlink(), "cannot read .*vae/config.json"),
    "no merges": (lambda folder: (folder / "tokenizer" / "merges.txt").unlink(), "cannot read .*merges.txt"),
    "an index without unet": (_config(".", "model_index.json", unet=[None, None]), "unet is None"),
    "an index of nonsense": (_config(".", "model_index.json", vae=3), "names no vae"),
    "another class": (_config(".", "model_index.json", vae=["diffusers", "AutoencoderTiny"]), "'AutoencoderTiny'"),
    "an index that is no JSON": (lambda folder: (folder / "model_index.json").write_text("{"), "is not JSON"),
    "truncated weights": (_truncate, "not a whole safetensors file"),
    "a missing weight": (_weights(lambda s: s.pop("quant_conv.bias")), "missing quant_conv.bias"),
    "a misshapen weight": (
        _weights(lambda s: s.update({"quant_conv.bias": np.zeros(5, np.float32)})),
        r"quant_conv.bias has shape \(5,\), expected \(4,\)",
    ),
    "an unknown weight": (
        _weights(lambda s: s.update({"decoder.stray": np.zeros(1, np.float32)})),
        "unknown decoder.stray",
    ),
    "a field that changes the result": (_config("unet", class_embed_type="text"), "class_embed_type = 'text'"),
    "a field of the wrong type": (_config("text_encoder", num_hidden_layers="two"), "num_hidden_layers = 'two' is not"),
    "another prediction": (
        _config("scheduler", "scheduler_config.json", prediction_type="flow_prediction"),
        "prediction_type = 'flow_prediction'",
    ),
    "betas of its own": (_config("scheduler", "scheduler_config.json", trained_betas=[0.1]), "trained_betas"),
    "a beta of letters": (_config("scheduler", "scheduler_config.json", beta_end="big"), "scheduler cannot be used"),
    "a tokenizer too long": (
        _config("tokenizer", "tokenizer_config.json", model_max_length=15),
        "tokenizer length in tokens is 15, text_encoder length 14",
    ),
}


@pytest.mark.parametrize("damage, message", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_folder_is_refused_in_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        pipelines.load(folder)
    assert "\n" not in str(caught.value)


def test_parts_that_do_not_fit_are_named(folder, tmp_path):
    wide = tiny_pipeline.make()
    wide.unet = type(wide.unet).from_config(wide.unet.config | {"cross_attention_dim": 6, "in_channels": 9})
    wide.save_pretrained(folder)
    with pytest.raises(UserError, match="unet cross_attention_dim is 6, text_encoder hidden_size 8; unet in_channels"):
        pipelines.load(folder)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_save_that_fails_leaves_the_pipeline_that_was_there(pipe, folder, monkeypatch, tmp_path):
    def fail(self, folder):
        raise OSError("disk full")

    before = contents(folder)
    monkeypatch.setattr(type(pipe.tokenizer), "save_pretrained", fail)
    for where in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="disk full"):
            tiny_pipeline.make(seed=1).save_pretrained(where)
    assert contents(folder) == before
    with pytest.raises(UserError, match="is no pipeline"):
        pipelines.load(tmp_path / "new")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_kill_at_any_moment_leaves_one_pipeline_or_the_other(pipe, folder, tmp_path):
    """Never the U-Net of the one with the text encoder of the other."""
    other = tiny_pipeline.make(seed=1)
    other.save_pretrained(tmp_path / "other")
    old, new = contents(folder), contents(tmp_path / "other")
    old.pop(next(path for path in old if path.name == "minild.json"))  # `other` has none
    call, seen = 0, []
    while killed_before(call, partial(other.save_pretrained, folder)):
        assert pipelines.find_folder(folder) == folder  # which mends it
        found = {path: content for path, content in contents(folder).items() if path in new}
        assert found in (old, new)
        seen.append(found == old)
        shutil.rmtree(folder)
        pipe.save_pretrained(folder)
        call += 7  # the calls are many
    assert seen[0] and not seen[-1] and seen == sorted(seen, reverse=True)


def test_one_that_cannot_be_mended_is_told(folder, monkeypatch):
    def refuse(folder, last):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folder_module, "finish_move", refuse)
    with pytest.raises(UserError, match=r"was cut off while it was written, and mending it failed: .*Read-only"):
        pipelines.load(folder)


def test_names_find_the_shipped_pipelines(pipe, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "data_path", lambda *parts: tmp_path.joinpath("data", *parts))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no pipeline 'shapes'"):
        pipelines.find_folder("shapes")
    for name in ("emoji", "shapes"):
        pipe.save_pretrained(tmp_path / "data" / "pretrained" / name)
    assert pipelines.find_folder() == tmp_path / "data" / "pretrained" / "emoji"
    assert pipelines.find_folder("shapes") == tmp_path / "data" / "pretrained" / "shapes"
    (tmp_path / "emoji").mkdir()  # not a pipeline, so it hides nothing
    assert pipelines.find_folder("emoji") == tmp_path / "data" / "pretrained" / "emoji"
    pipe.save_pretrained(tmp_path / "emoji")
    assert pipelines.find_folder("emoji").resolve() == tmp_path / "emoji"
    with pytest.raises(UserError, match="nowhere is no pipeline"):
        pipelines.find_folder("nowhere")


def test_load_refuses_a_dtype_and_a_device(folder):
    with pytest.raises(UserError, match="dtype: expected one of float16, float32, float64, got 'int8'"):
        pipelines.load(folder, dtype="int8")
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        pipelines.load(folder, device="tpu")


def test_describe_tells_parts_sizes_and_training(pipe, folder):
    text = "\n".join(describe(folder))
    for part in MODELS:
        assert f"{getattr(pipe, part).parameter_count():,} parameters, float32" in text
    total = sum(getattr(pipe, part).parameter_count() for part in MODELS)
    assert f"in all        {total:,} parameters" in text
    assert "8 x 8 pixels; latents 4 x 4 x 2, f = 2" in text
    assert "trained on    shapes at 8 x 8 pixels" in text
    assert "diffusion: 3,400 steps in 62 s" in text
    assert f"{len(pipe.tokenizer)} tokens, 14 to a prompt" in text
    assert "1000 steps, scaled_linear betas from 0.00085 to 0.012; sampler ddim" in text


def test_describe_refuses_what_is_broken(folder):
    _truncate(folder)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        describe(folder)
    edit(folder / "minild.json", stages={"diffusion": {}})
    with pytest.raises(UserError, match="cannot be used: KeyError: 'steps'"):
        describe(folder)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp-2m", "ddpm"])
def test_more_channels_of_the_unet_are_a_learnt_variance_or_a_misfit(sampler, tmp_path):
    """A sampler that has no use for the variance draws what a U-Net without it would."""
    plain = tiny_pipeline.make()
    plain.schedule = NoiseSchedule({"set_alpha_to_one": True})  # as DDIM has it where a file of DDPM says nothing
    state = plain.unet.state_dict()
    unet = UNet2DConditionModel.from_config(plain.unet.config | {"out_channels": 4})
    rng = np.random.default_rng(2)
    more = {f"conv_out.{name}": state[f"conv_out.{name}"] for name in ("weight", "bias")}
    wider = {name: np.concatenate([x, rng.standard_normal(x.shape, np.float32)]) for name, x in more.items()}
    unet.load_state_dict(state | wider)
    learnt = tiny_pipeline.make()
    learnt.unet, learnt.schedule = unet, NoiseSchedule({"variance_type": "learned_range"})
    learnt.sampler = "ddpm"
    learnt.save_pretrained(tmp_path)
    pictures, expected = (
        pipe.text_to_image(tiny_pipeline.CAPTIONS[0], steps=4, sampler=sampler)
        for pipe in (pipelines.load(tmp_path), plain)
    )
    if sampler == "ddpm":
        assert np.abs(pictures - expected).max() > 1e-3
    else:
        np.testing.assert_allclose(pictures, expected, atol=1e-5)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"variance_type": "fixed_small"}))
    with pytest.raises(UserError, match="unet out_channels is 4, vae latent channels 2"):
        pipelines.load(tmp_path)


def test_ddpm_refuses_a_learnt_variance_that_the_unet_does_not_tell(tmp_path):
    pipeline = tiny_pipeline.make()
    pipeline.schedule, pipeline.sampler = NoiseSchedule({"variance_type": "learned"}), "ddpm"
    pipeline.save_pretrained(tmp_path)
    words = "variance_type = 'learned' needs 4 output channels for latents of 2, the U-Net has 2: use another sampler"
    with pytest.raises(UserError, match=words):
        pipelines.load(tmp_path).text_to_image(tiny_pipeline.CAPTIONS[0], steps=2)
    assert pipelines.load(tmp_path).text_to_image(tiny_pipeline.CAPTIONS[0], steps=2, sampler="ddim").shape == (
        1,
        8,
        8,
        3,
    )
