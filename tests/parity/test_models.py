"""The models against the reference's: the same folder, the same outputs, the same gradient of every parameter.

models/passes.py states how near: within 1e-5 of the largest value in float32; in float64 outputs within 1e-12 and
gradients within 1e-10. Either library rounds in float32, and the narrower the model, the likelier is a parameter whose
gradient is a small rest of large terms: the deeper models here are wide enough for 1e-5 to hold.
"""

import numpy as np
import pytest
from models.passes import BLIND, ONE_TOKEN, assert_same, run
from models.tiny import (
    AUTOENCODER,
    LABELLED,
    PROJECTED,
    TEXT,
    THREE_LEVELS,
    UNET,
    UNET_2,
    autoencoder_inputs,
    labels,
    unet_inputs,
)
from safetensors.numpy import load_file, save_file

from minild import models
from parity import reference
from parity.reference import pair, torch

# The fewer channels a group has, the more of a bias before it is cancelled by the norm, and of its gradient.
AUTOENCODER = AUTOENCODER | {"block_out_channels": [8, 16], "norm_num_groups": 2}
DEEP_AUTOENCODER = AUTOENCODER | {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "latent_channels": 3,
}
NO_ATTENTION = AUTOENCODER | {"mid_block_add_attention": False}
NO_QUANT_CONV = AUTOENCODER | {"use_quant_conv": False, "use_post_quant_conv": False}
FOUR_LEVELS = UNET | {  # Stable Diffusion 1's own plan, narrow
    "block_out_channels": [16, 16, 32, 32],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "in_channels": 4,
    "out_channels": 4,
}
TEXT = TEXT | {"bos_token_id": 9, "eos_token_id": 10, "pad_token_id": 10}


WRITERS = pytest.mark.parametrize("writer", ["minild", "reference"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@WRITERS
@DTYPES
@pytest.mark.parametrize("config", [UNET, UNET_2, FOUR_LEVELS], ids=["unet", "unet 2", "four levels"])
def test_unet(tmp_path, rng, config, dtype, writer):
    ours, theirs = pair("UNet2DConditionModel", config, writer, tmp_path, rng)
    inputs = unet_inputs(rng, config["in_channels"]) | {"t": np.array([3.75, 212.25])}  # float32 holds them exactly
    if config is FOUR_LEVELS:
        inputs["x"] = rng.standard_normal((2, 8, 16, 4))
    inputs["dy"] = rng.standard_normal((*inputs["x"].shape[:3], config["out_channels"]))
    # Through four levels both are some 5e-6 from the gradient in float64, and on some processors on opposite sides.
    slack = 2 if config is FOUR_LEVELS else 1
    assert_same(run(ours, inputs, dtype), reference.run(theirs, inputs, dtype), dtype, slack=slack)


def unet_passes(config, size, dtype, writer, folder, rng):
    """(ours, theirs) of a U-Net on latents of that size."""
    ours, theirs = pair("UNet2DConditionModel", config, writer, folder, rng)
    inputs = unet_inputs(rng, config["in_channels"], size) | {"t": np.array([3.75, 212.25])}
    inputs["dy"] = rng.standard_normal((2, *size, config["out_channels"]))
    return run(ours, inputs, dtype), reference.run(theirs, inputs, dtype)


@pytest.mark.parametrize("size", [(9, 8), (8, 13), (17, 15), (2, 30), (5, 16), (1, 9)], ids=str)
def test_any_size_of_latents(tmp_path, rng, size):
    """Four levels halve to 3 x 2 and to 2 x 1, rounded up, and meet their skips on the way back."""
    assert_same(*unet_passes(FOUR_LEVELS, size, "float64", "minild", tmp_path, rng), "float64")


def test_a_size_of_many_odd_levels_in_float32(tmp_path, rng):
    assert_same(*unet_passes(FOUR_LEVELS, (17, 15), "float32", "reference", tmp_path, rng), "float32")


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 5)], ids=str)
def test_levels_of_a_single_token(tmp_path, rng, size):
    assert_same(*unet_passes(FOUR_LEVELS, size, "float64", "minild", tmp_path, rng), "float64", (*BLIND, *ONE_TOKEN))


SAID = {  # as a config says it: what it means here
    "no middle": {"mid_block_type": None},
    "depths of their own": {"layers_per_block": [1, 2, 1, 3]},
    "heads of their own": {"attention_head_dim": [1, 2, 4, 8]},
    "lists of one value": {
        "only_cross_attention": [False] * 4,
        "transformer_layers_per_block": [1] * 4,
        "cross_attention_dim": [6] * 4,
        "layers_per_block": [2] * 4,
        "attention_head_dim": [2] * 4,
    },
    "attention to the context alone": {"only_cross_attention": [True, False, True, False]},
    "everywhere": {"only_cross_attention": True},
    "a width of the time embedding": {"time_embedding_dim": 20},
    "fields of other blocks": {
        "dropout": 0.1,
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 0.3,
        "mid_block_only_cross_attention": True,
        "cross_attention_norm": "group_norm",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 3,
        "class_embeddings_concat": None,
    },
}


@WRITERS
@pytest.mark.parametrize("said", SAID)
def test_what_else_a_config_can_say(tmp_path, rng, said, writer):
    assert_same(*unet_passes(FOUR_LEVELS | SAID[said], (9, 16), "float64", writer, tmp_path, rng), "float64")


@WRITERS
@DTYPES
def test_a_unet_of_three_levels_with_no_middle(tmp_path, rng, dtype, writer):
    config = THREE_LEVELS | {"block_out_channels": [16, 16, 32]}
    assert_same(*unet_passes(config, (7, 10), dtype, writer, tmp_path, rng), dtype)


WIDE = {"block_out_channels": [16, 32]}  # as above, for float32


@WRITERS
@DTYPES
@pytest.mark.parametrize("case", LABELLED)
def test_a_unet_of_class_labels(tmp_path, rng, case, dtype, writer):
    config, shape = LABELLED[case]
    shape = (2, 64) if case == "identity" else shape
    ours, theirs = pair("UNet2DConditionModel", config | WIDE, writer, tmp_path, rng)
    inputs = unet_inputs(rng, config["in_channels"]) | {"t": np.array([3.75, 212.25])}
    inputs |= {"dy": rng.standard_normal((2, 4, 6, 3)), "class_labels": labels(rng, shape)}
    if case == "timestep":
        inputs["class_labels"] = np.array([20.5, 0.25])
    assert_same(run(ours, inputs, dtype), reference.run(theirs, inputs, dtype), dtype)


@WRITERS
@DTYPES
@pytest.mark.parametrize("case", PROJECTED)
def test_a_unet_that_projects_its_context(tmp_path, rng, case, dtype, writer):
    config, shape = PROJECTED[case]
    ours, theirs = pair("UNet2DConditionModel", config | WIDE, writer, tmp_path, rng)
    inputs = unet_inputs(rng, 3) | {"t": np.array([3.75, 212.25]), "context": rng.standard_normal(shape)}
    inputs["dy"] = rng.standard_normal((2, 4, 6, 3))
    assert_same(run(ours, inputs, dtype), reference.run(theirs, inputs, dtype), dtype)


def test_doubled_and_cut_is_the_nearest_neighbour():
    for odd in range(1, 400, 2):
        x = torch.arange((odd + 1) // 2, dtype=torch.float32).reshape(1, 1, -1, 1)
        theirs = torch.nn.functional.interpolate(x, size=(odd, 1), mode="nearest")
        np.testing.assert_array_equal(theirs.ravel(), np.arange(odd) // 2)


@WRITERS
@DTYPES
@pytest.mark.parametrize(
    "config",
    [AUTOENCODER, NO_ATTENTION, NO_QUANT_CONV, DEEP_AUTOENCODER],
    ids=["two levels", "no attention", "no quant_conv", "three levels"],
)
def test_autoencoder(tmp_path, rng, config, dtype, writer):
    ours, theirs = pair("AutoencoderKL", config, writer, tmp_path, rng)
    inputs = autoencoder_inputs(rng)
    if config is DEEP_AUTOENCODER:
        inputs = {"x": rng.standard_normal((2, 24, 16, 3)), "noise": rng.standard_normal((2, 6, 4, 3))}
    inputs["dy"] = rng.standard_normal(inputs["x"].shape)
    inputs["dmean"], inputs["dlogvar"] = rng.standard_normal((2, *inputs["noise"].shape))
    assert_same(run(ours, inputs, dtype), reference.run(theirs, inputs, dtype), dtype)


def change_prefix(folder, prefix):
    """Rewrite a text model's keys with that prefix before each."""
    state = load_file(folder / "model.safetensors")
    state = {prefix + name.removeprefix("text_model."): array for name, array in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@WRITERS
@DTYPES
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("prefix", ["", "text_model."], ids=["no prefix", "text_model."])
def test_text_encoder(tmp_path, rng, prefix, activation, dtype, writer):
    ours, theirs = pair("CLIPTextModel", TEXT | {"hidden_act": activation}, writer, tmp_path, rng)
    change_prefix(tmp_path, prefix)
    if writer == "minild":
        theirs = reference.REFERENCES["CLIPTextModel"].from_pretrained(tmp_path).eval()
    else:
        ours = models.CLIPTextModel.from_pretrained(tmp_path)
    token_ids = rng.integers(0, 9, (2, 6))
    token_ids[:, 0], token_ids[0, 3:], token_ids[1, 5] = 9, 10, 10
    inputs = {"token_ids": token_ids, "dy": rng.standard_normal((2, 6, 8))}
    assert_same(run(ours, inputs, dtype), reference.run(theirs, inputs, dtype), dtype)


def test_the_timestep_embedding_in_float64_is_the_references_but_for_rounding(rng):
    for config in (UNET, UNET_2):
        theirs = reference.make_reference("UNet2DConditionModel", config, rng).time_proj
        t = reference.torch.tensor([3.75, 612.25])
        np.testing.assert_allclose(reference.TimestepsInFloat64(theirs)(t), theirs(t), atol=1e-4)
