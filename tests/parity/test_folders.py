"""Folders against the reference: what either writes, the other reads with no changed bit, in every form."""

import inspect

import narrow_sd1
import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel, VQModel
from minild.pipelines import Pipeline, single_file
from parity.reference import REFERENCES, StableDiffusionPipeline, diffusers, torch

MODELS = ("vae", "text_encoder", "unet")
CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def config(kinds, channels, groups, layers, heads, linear, context, activation, size, vae_layers):
    """Configs of a U-Net whose blocks are of those kinds, of an autoencoder as deep, of a text encoder as wide."""
    unet = {
        "block_out_channels": channels,
        "down_block_types": [down for down, _ in kinds],
        "up_block_types": [up for _, up in reversed(kinds)],
        "norm_num_groups": groups,
        "layers_per_block": layers,
        "attention_head_dim": heads,
        "use_linear_projection": linear,
        "cross_attention_dim": context,
        "sample_size": size,
    }
    vae = {
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "norm_num_groups": groups,
        "layers_per_block": vae_layers,
    }
    text = {"hidden_size": context, "intermediate_size": 3 * context, "hidden_act": activation}
    return {"unet": unet, "vae": vae, "text_encoder": text}


CONFIGS = {
    "one block, odd channels": config([CROSS], [15], 5, 1, 3, False, 10, "quick_gelu", 8, 1),
    "one block, linear projections": config([CROSS], [6], 3, 2, 2, True, 6, "gelu", [4, 6], 2),
    "two blocks": config([CROSS, PLAIN], [18, 9], 9, 1, 3, False, 8, "quick_gelu", [6, 10], 1),
    "two blocks, heads of their own": config([PLAIN, CROSS], [10, 20], 5, 2, [5, 4], True, 14, "gelu", 8, 2),
    "three blocks": config([CROSS, CROSS, PLAIN], [14, 7, 21], 7, 1, 7, False, 8, "quick_gelu", [4, 12], 1),
    "three blocks, linear projections": config([CROSS, PLAIN, CROSS], [8, 8, 12], 4, 2, [1, 2, 3], True, 12, "gelu",
                                               16, 1),
}


def make(name):
    """Our pipeline of that config, every weight drawn."""
    tiny = tiny_pipeline.make()
    text = tiny.text_encoder.config
    mine = CONFIGS[name]
    models = {
        "unet": UNet2DConditionModel.from_config(mine["unet"]),
        "vae": AutoencoderKL.from_config(mine["vae"]),
        "text_encoder": CLIPTextModel.from_config(text | mine["text_encoder"]),
    }
    rng = np.random.default_rng(len(name))
    for model in models.values():
        for parameter in model.parameters():
            parameter.data = rng.standard_normal(parameter.data.shape, np.float32)
    return Pipeline(**models, tokenizer=tiny.tokenizer, schedule=tiny.schedule)


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


def assert_same_bits(pipe, reference):
    """Every weight of ours is the reference's of the same key, and it has no others."""
    for part in MODELS:
        ours = getattr(pipe, part).state_dict()
        prefix = "text_model." if part == "text_encoder" else ""
        state = getattr(reference, part).state_dict()
        theirs = {key.removeprefix(prefix): tensor.float().numpy() for key, tensor in state.items()}
        assert ours.keys() == theirs.keys() - {"embeddings.position_ids"}
        for key, array in ours.items():
            assert array.shape == theirs[key].shape, key
            np.testing.assert_array_equal(bits(array), bits(theirs[key]), key)


def open_reference(folder, **options):
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True, **options)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pipeline_goes_there_and_back_with_no_changed_bit(name, tmp_path):
    pipe = make(name)
    pipe.save_pretrained(tmp_path / "ours")
    reference = open_reference(tmp_path / "ours")
    assert_same_bits(pipe, reference)
    reference.save_pretrained(tmp_path / "theirs")
    again = pipelines.load(tmp_path / "theirs")
    assert_same_bits(again, reference)
    np.testing.assert_array_equal(*(p.text_to_image("a red star", steps=1) for p in (pipe, again)))


FORMS = {
    "whole": ({}, None),
    "fp16": ({"variant": "fp16"}, torch.float16),
    "shards": ({"max_shard_size": "10KB"}, None),
    "fp16 shards": ({"variant": "fp16", "max_shard_size": "10KB"}, torch.float16),
    "bfloat16": ({}, torch.bfloat16),
    "bfloat16 shards": ({"max_shard_size": "10KB"}, torch.bfloat16),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_that_the_reference_writes_is_read(name, tmp_path):
    options, dtype = FORMS[name]
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    tiny_pipeline.make().save_pretrained(tmp_path / "ours")
    reference = open_reference(tmp_path / "ours")
    if dtype:
        reference.to(dtype)
    reference.save_pretrained(tmp_path / "theirs", **options)
    files = [path.name for path in (tmp_path / "theirs" / "unet").iterdir()]
    assert any("fp16" in file for file in files) == ("fp16" in name)
    assert any("index" in file for file in files) == ("shards" in name)
    assert_same_bits(pipelines.load(tmp_path / "theirs"), reference)


def test_the_original_keys_are_those_that_the_reference_converts(tmp_path):
    """Its own converters of the original layout, on the file that ours is tested with."""
    from diffusers.loaders import single_file_utils as converters

    pipe = narrow_sd1.make()
    state = {key: torch.from_numpy(np.ascontiguousarray(a)) for key, a in narrow_sd1.original_state(pipe).items()}
    theirs = {
        "unet": converters.convert_ldm_unet_checkpoint(dict(state), pipe.unet.config),
        "vae": converters.convert_ldm_vae_checkpoint(dict(state), pipe.vae.config),
        "text_encoder": converters.convert_ldm_clip_checkpoint(dict(state)),
    }
    for part in MODELS:
        expected = getattr(pipe, part).state_dict()
        found = {key.removeprefix("text_model."): tensor.numpy() for key, tensor in theirs[part].items()}
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key].reshape(array.shape), array, key)
    for key in state:
        part = next(part for part, prefix in single_file.PREFIXES.items() if key.startswith(prefix))
        ours = single_file.our_key(part, key)
        np.testing.assert_array_equal(theirs[part][ours].reshape(-1), state[key].reshape(-1), key)


@pytest.mark.parametrize("model", [UNet2DConditionModel, AutoencoderKL, VQModel])
def test_every_field_of_the_references_config_is_known_with_its_default(model):
    signature = inspect.signature(REFERENCES[model.__name__].__init__)
    defaults = {name: p.default for name, p in signature.parameters.items() if name != "self"}
    assert getattr(diffusers, model.__name__) is REFERENCES[model.__name__] and len(defaults) > 10
    complete = model.complete_config({})
    for field, value in defaults.items():
        value = list(value) if isinstance(value, tuple) else value
        if field in model.defaults:
            assert complete[field] == value, field
        elif field in model.only:
            assert value in model.only[field], field
        else:
            assert field in model.inert | model.unused, field
