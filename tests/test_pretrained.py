"""minild.pretrained and the models' from_pretrained and save_pretrained: what is read, written and refused."""

import json

import numpy as np
import pytest
from models.tiny import AUTOENCODER, TEXT, UNET, UNET_2
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from minild import backend, pretrained
from minild.errors import UserError
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from minild.pretrained import read_json, read_weights, write_weights

MODELS = [(UNet2DConditionModel, UNET), (UNet2DConditionModel, UNET_2), (AutoencoderKL, AUTOENCODER),
          (CLIPTextModel, TEXT)]
MODEL_IDS = ["unet", "unet 2", "autoencoder", "text"]
TO_DISK = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path):
    """An autoencoder, and the folder it was written to."""
    model = AutoencoderKL.from_config(AUTOENCODER, seed=3)
    model.save_pretrained(tmp_path)
    return model, tmp_path


def change_weights(folder, change, name=TO_DISK):
    state = load_file(folder / name)
    change(state)
    save_file(state, folder / name)


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def assert_equal_states(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name])


@pytest.mark.parametrize(("model_class", "config"), MODELS, ids=MODEL_IDS)
def test_what_was_written_is_read_bit_for_bit(device, tmp_path, model_class, config):
    model = model_class.from_config(config, seed=3)
    model.to(device).save_pretrained(tmp_path / "new" / "folder")
    again = model_class.from_pretrained(tmp_path / "new" / "folder", device=device)
    assert all(backend.device_of(p.data) == device for p in again.parameters())
    assert_equal_states(model.state_dict(), again.state_dict())
    assert again.config == model.config
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(("model_class", "config"), MODELS, ids=MODEL_IDS)
def test_read_models_compute_the_same(tmp_path, rng, model_class, config):
    model = model_class.from_config(config, seed=3)
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path)
    if model_class is CLIPTextModel:
        inputs = [rng.integers(0, 11, (2, 5))]
    elif model_class is AutoencoderKL:
        inputs = [rng.standard_normal((1, 4, 6, 3), dtype="f"), rng.standard_normal((1, 2, 3, 2), dtype="f")]
    else:
        x = rng.standard_normal((1, 4, 6, config["in_channels"]), dtype="f")
        inputs = [x, np.array([500]), rng.standard_normal((1, 3, 6), dtype="f")]
    first, second = model(*inputs), again(*inputs)
    np.testing.assert_array_equal(*(y[0] if isinstance(y, tuple) else y for y in (first, second)))


def test_the_interchange_layout():
    """Convolutions OIHW, linear layers out x in, everything else as it is."""
    model = UNet2DConditionModel.from_config(UNET)
    state = model.state_dict()
    ours = dict(model.named_parameters())
    conv, linear, norm = "down_blocks.0.resnets.0.conv1", "time_embedding.linear_1", "conv_norm_out"
    assert state[f"{conv}.weight"].shape == (8, 8, 3, 3)
    assert state["conv_in.weight"][5, 1, 0, 2] == ours["conv_in.weight"].data[0, 2, 1, 5]
    assert state[f"{linear}.weight"].shape == (32, 8)
    assert state[f"{linear}.weight"][30, 2] == ours[f"{linear}.weight"].data[2, 30]
    np.testing.assert_array_equal(state[f"{norm}.weight"], ours[f"{norm}.weight"].data)
    assert all(array.flags.c_contiguous for array in state.values())


def test_gradients_have_the_layout_of_their_weights(rng):
    model = AutoencoderKL.from_config(AUTOENCODER)
    assert not any(g.any() for g in model.gradient_dict().values())  # none yet counts as zero
    (y, posterior), cache = model.forward(rng.standard_normal((1, 4, 6, 3), dtype="f"), np.ones((1, 2, 3, 2), "f"))
    dposterior = 0 * posterior.mean, 0 * posterior.logvar
    model.backward((rng.standard_normal(y.shape, dtype="f"), dposterior), cache)
    gradients, state = model.gradient_dict(), model.state_dict()
    assert {k: g.shape for k, g in gradients.items()} == {k: a.shape for k, a in state.items()}
    ours = model.encoder.conv_in.weight.grad
    assert gradients["encoder.conv_in.weight"][3, 2, 0, 1] == ours[0, 1, 2, 3] != 0


def test_float16_is_written_and_read(saved):
    model, folder = saved
    model.save_pretrained(folder, dtype="float16")
    assert {array.dtype.name for array in load_file(folder / TO_DISK).values()} == {"float16"}
    for dtype in ("float16", "float32"):
        again = AutoencoderKL.from_pretrained(folder, dtype=dtype).state_dict()
        assert {array.dtype.name for array in again.values()} == {dtype}
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(again[name], array.astype("float16"))


def test_memory_that_was_never_drawn_is_never_cast(saved, monkeypatch):
    """Whatever an empty array happens to hold, reading a model as float16 warns of nothing."""
    model, folder = saved
    empty = np.empty

    def rubbish(shape, dtype=float):
        array = empty(shape, dtype)
        array.fill(1e30 if array.dtype == np.float32 else 0)
        return array

    monkeypatch.setattr(np, "empty", rubbish)
    again = AutoencoderKL.from_pretrained(folder, dtype="float16").state_dict()
    np.testing.assert_array_equal(again["quant_conv.weight"], model.state_dict()["quant_conv.weight"].astype("e"))


def test_files_are_as_the_reference_writes_them(saved, tmp_path):
    _, folder = saved
    with safe_open(folder / TO_DISK, "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert (folder / TO_DISK).stat().st_mode == (folder / "config.json").stat().st_mode
    config = json.loads((folder / "config.json").read_text())
    assert config["_class_name"] == "AutoencoderKL" and config["block_out_channels"] == [4, 8]
    CLIPTextModel.from_config(TEXT).save_pretrained(tmp_path / "text")
    names = load_file(tmp_path / "text" / "model.safetensors")
    assert "text_model.encoder.layers.1.self_attn.q_proj.weight" in names
    assert all(name.startswith("text_model.") for name in names)


def test_newer_and_older_text_encoder_keys(tmp_path):
    """transformers writes no prefix since 5.6; old files carry the numbers of the positions."""
    model = CLIPTextModel.from_config(TEXT, seed=3)
    model.save_pretrained(tmp_path)

    def without_prefix(state):
        for name in list(state):
            state[name.removeprefix("text_model.")] = state.pop(name)

    def with_positions(state):
        state["text_model.embeddings.position_ids"] = np.arange(7)[None]

    for change in (with_positions, without_prefix):
        model.save_pretrained(tmp_path)
        change_weights(tmp_path, change, "model.safetensors")
        assert_equal_states(CLIPTextModel.from_pretrained(tmp_path).state_dict(), model.state_dict())


def test_older_autoencoder_keys(saved):
    model, folder = saved

    def rename(state):
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in list(state):
            for new, was in old.items():
                if f".attentions.0.{new}." in name:
                    state[name.replace(new, was)] = state.pop(name)

    change_weights(folder, rename)
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in load_file(folder / TO_DISK)
    assert_equal_states(AutoencoderKL.from_pretrained(folder).state_dict(), model.state_dict())


def test_a_linear_layer_and_a_one_by_one_convolution_read_each_other(saved):
    model, folder = saved

    def swap(state):
        state["quant_conv.weight"] = state["quant_conv.weight"][:, :, 0, 0]
        name = "encoder.mid_block.attentions.0.to_q.weight"
        state[name] = state[name][:, :, None, None]

    change_weights(folder, swap)
    assert_equal_states(AutoencoderKL.from_pretrained(folder).state_dict(), model.state_dict())


def test_weights_that_are_no_real_numbers_are_named(saved):
    _, folder = saved
    change_weights(folder, lambda state: state.update({"quant_conv.bias": np.zeros(4, np.int8)}))
    with pytest.raises(UserError, match=r"quant_conv\.bias holds int8, expected floating point"):
        AutoencoderKL.from_pretrained(folder)


def test_a_weight_under_two_spellings_is_named(saved):
    _, folder = saved
    name = "encoder.mid_block.attentions.0.{}.bias"
    change_weights(folder, lambda state: state.update({name.format("query"): state[name.format("to_q")]}))
    with pytest.raises(UserError, match=r"\.bias and .*\.bias are the same weight"):
        AutoencoderKL.from_pretrained(folder)


def test_a_read_model_shares_no_array_with_what_it_was_read_from():
    model = AutoencoderKL.from_config(AUTOENCODER, seed=3)
    state = model.state_dict()
    other = AutoencoderKL.from_config(AUTOENCODER, seed=4)
    other.load_state_dict(state)
    assert not any(np.shares_memory(p.data, array) for p in other.parameters() for array in state.values())
    assert all(p.data.flags.writeable and type(p.data) is np.ndarray for p in other.parameters())


def missing(state):
    del state["quant_conv.bias"]


def unknown(state):
    state["encoder.stray.weight"] = np.zeros(3, "f")


def misshapen(state):
    state["encoder.conv_in.weight"] = np.zeros((4, 3, 5, 5), "f")


@pytest.mark.parametrize(("change", "message"), [
    (missing, r"missing quant_conv\.bias"),
    (unknown, r"unknown encoder\.stray\.weight"),
    (misshapen, r"encoder\.conv_in\.weight has shape \(4, 3, 5, 5\), expected \(4, 3, 3, 3\)"),
])
def test_weights_that_do_not_fit_are_named(saved, change, message):
    _, folder = saved
    change_weights(folder, change)
    with pytest.raises(UserError, match=message) as caught:
        AutoencoderKL.from_pretrained(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_refused_state_changes_nothing():
    model = AutoencoderKL.from_config(AUTOENCODER, seed=3)
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    missing(state)
    with pytest.raises(ValueError, match="missing"):
        model.load_state_dict(state)
    assert_equal_states(model.state_dict(), before)


def test_of_many_faults_twenty_are_listed():
    model = AutoencoderKL.from_config(AUTOENCODER)
    with pytest.raises(ValueError) as caught:
        model.load_state_dict({})
    assert str(caught.value).count("missing ") == 20
    assert str(caught.value).endswith(f"and {len(model.parameters()) - 20} more")


@pytest.mark.parametrize("length", [0, 5, 100, 5000, -1])
def test_a_truncated_file_is_named(saved, length):
    _, folder = saved
    path = folder / TO_DISK
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"model\.safetensors is not a whole safetensors file") as caught:
        AutoencoderKL.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(saved, tmp_path):
    _, folder = saved
    (folder / TO_DISK).unlink()
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors"):
        AutoencoderKL.from_pretrained(folder)
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        AutoencoderKL.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is not JSON"), ("", "is not JSON"), ("[1]", "does not hold a JSON object"), ("\xff", "is not JSON"),
])
def test_a_broken_config_is_named(saved, text, message):
    _, folder = saved
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"config.json {message}") as caught:
        AutoencoderKL.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("model_class", "config", "fields", "message"), [
    (AutoencoderKL, AUTOENCODER, {"act_fn": "relu"}, "act_fn = 'relu' is not supported, use 'silu'"),
    (AutoencoderKL, AUTOENCODER, {"latent_channels": None}, "latent_channels = None is not supported, use one number"),
    (AutoencoderKL, AUTOENCODER, {"quantization_config": {"load_in_8bit": True}}, "quantization_config = {"),
    (AutoencoderKL, AUTOENCODER, {"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "down_block_types"),
    (AutoencoderKL, AUTOENCODER, {"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types"),
    (UNet2DConditionModel, UNET, {"conv_in_kernel": 5}, "conv_in_kernel = 5 is not supported, use 3"),
    (UNet2DConditionModel, UNET, {"addition_embed_type": "text_time"}, "addition_embed_type = 'text_time'"),  # SDXL
    (UNet2DConditionModel, UNET, {"transformer_layers_per_block": [1, 2]}, "transformer_layers_per_block"),
    (UNet2DConditionModel, UNET, {"class_embed_type": "text"}, "class_embed_type = 'text' is not supported"),
    (UNet2DConditionModel, UNET, {"down_block_types": ["CrossAttnDownBlock2D", "SkipDownBlock2D"]}, "down_block_types"),
    (UNet2DConditionModel, UNET, {"up_block_types": ["UpBlock2D"]}, "up_block_types"),
    (CLIPTextModel, TEXT, {"hidden_act": "relu"}, "hidden_act"),
    (CLIPTextModel, TEXT, {"num_attention_heads": 3}, "num_attention_heads = 3 does not divide the width 8"),
    (AutoencoderKL, AUTOENCODER, {"norm_num_groups": 3}, "norm_num_groups = 3 does not divide the width 4"),
    (AutoencoderKL, AUTOENCODER, {"scaling_factor": 0}, "scaling_factor = 0 leaves nothing of a latent"),
    (UNet2DConditionModel, UNET, {"norm_num_groups": 3}, "norm_num_groups = 3 does not divide the width 8"),
    (UNet2DConditionModel, UNET, {"attention_head_dim": 3}, "attention_head_dim = 3 does not divide the width 8"),
    (UNet2DConditionModel, UNET, {"sample_size": "4"}, "sample_size = '4' is not supported, use a number of 1 or more"),
    (UNet2DConditionModel, UNET, {"sample_size": 0}, "sample_size = 0 is not supported"),
    (UNet2DConditionModel, UNET, {"sample_size": 4.0}, r"sample_size = 4\.0 is not supported"),
    (CLIPTextModel, TEXT, {"layer_norm_eps": "1e-5"}, "layer_norm_eps = '1e-5' is not supported, use one number"),
    (CLIPTextModel, TEXT, {"initializer_factor": None}, "initializer_factor = None is not supported"),
    (CLIPTextModel, TEXT, {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config = {"),
    (UNet2DConditionModel, UNET, {"quantization_config": {"quant_method": "torchao"}}, "quantization_config = {"),
    (UNet2DConditionModel, UNET, {"norm_num_groups": True}, "norm_num_groups = True is not supported, use one number"),
    (UNet2DConditionModel, UNET, {"norm_eps": None}, "norm_eps = None is not supported, use one number"),
])
def test_a_config_that_is_not_supported_is_refused(tmp_path, model_class, config, fields, message):
    with pytest.raises(UserError, match=message):
        model_class.from_config(config | fields)
    model_class.from_config(config).save_pretrained(tmp_path)
    change_config(tmp_path, **fields)
    with pytest.raises(UserError, match=message) as caught:
        model_class.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_fields_that_change_nothing_are_accepted(saved):
    model, folder = saved
    change_config(folder, _diffusers_version="0.40.0", force_upcast=True, act_fn="swish", latents_mean=None)
    again = AutoencoderKL.from_pretrained(folder)
    assert again.config == model.config and again.passed_over == []


def test_absent_fields_take_the_references_defaults(saved):
    _, folder = saved
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"]  # old files have none
    path.write_text(json.dumps(config))
    assert AutoencoderKL.from_pretrained(folder).config["scaling_factor"] == 0.18215


def test_a_file_is_whole_or_as_it_was(saved, monkeypatch):
    """A write that fails half-way leaves the weights that were there."""
    model, folder = saved

    def fail(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pretrained, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        AutoencoderKL.from_config(AUTOENCODER, seed=4).save_pretrained(folder)
    assert_equal_states(AutoencoderKL.from_pretrained(folder).state_dict(), model.state_dict())


def test_fields_and_weights_beside_the_model_are_passed_over_and_told(saved):
    """What EMA training writes into a config, and parts that the model does not have, in dtypes that nobody reads."""
    model, folder = saved
    change_config(folder, decay=0.9999, inv_gamma=1.0, power=2 / 3, use_ema_warmup=True)
    beside = {"loss.perceptual.weight": np.zeros(3, "f"), "step": np.ones(())}
    change_weights(folder, lambda state: state.update(beside))
    again = AutoencoderKL.from_pretrained(folder)
    assert again.passed_over == [
        "passed over 4 fields of config.json: decay, inv_gamma, power, ...",
        "passed over 2 weights: step, loss.perceptual.weight",
    ]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    assert "decay" not in again.config
    with pytest.raises(UserError, match="unknown field 'decay'"):  # in Python it is a slip of the pen
        AutoencoderKL.from_config(AUTOENCODER | {"decay": 0.9})


def test_the_text_encoder_of_a_whole_clip(tmp_path):
    model = CLIPTextModel.from_config(TEXT, seed=2)
    model.save_pretrained(tmp_path)
    text_config = read_json(tmp_path / "config.json")
    whole = {"model_type": "clip", "text_config": text_config, "vision_config": {}, "projection_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    beside = ["text_projection.weight", "visual_projection.weight", "logit_scale", "vision_model.encoder.x.weight"]
    state = read_weights(tmp_path / CLIPTextModel.weights_name)
    write_weights(tmp_path / CLIPTextModel.weights_name, state | {key: np.ones(2, "f") for key in beside})
    again = CLIPTextModel.from_pretrained(tmp_path)
    assert len(again.passed_over) == 1 and again.passed_over[0].startswith("passed over 4 weights: ")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)


def test_what_changes_the_result_stays_refused(saved):
    _, folder = saved
    change_config(folder, decay=0.9, act_fn="relu")
    with pytest.raises(UserError, match="act_fn = 'relu' is not supported"):
        AutoencoderKL.from_pretrained(folder)


def as_variant(folder, name, variant):
    """Give the file of a model's weights another name."""
    (folder / AutoencoderKL.weights_name).rename(folder / name.format(variant))


@pytest.mark.parametrize("variant", ["bf16", "fp16", "fp32", "non_ema", "ema", "mine"])
def test_a_variant_is_read_where_there_is_no_plain_name(saved, variant):
    model, folder = saved
    as_variant(folder, "diffusion_pytorch_model.{}.safetensors", variant)
    again = AutoencoderKL.from_pretrained(folder)
    assert again.passed_over == ([f"took the variant {variant}"] if variant in ("non_ema", "ema", "mine") else [])
    np.testing.assert_array_equal(again.state_dict()["quant_conv.bias"], model.state_dict()["quant_conv.bias"])


def test_a_variant_read_in_place_of_a_pickle_is_told(saved):
    """The reference would open the pickle, of more bits it may be."""
    _, folder = saved
    as_variant(folder, "diffusion_pytorch_model.{}.safetensors", "fp16")
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    assert AutoencoderKL.from_pretrained(folder).passed_over == ["took the variant fp16"]


@pytest.mark.parametrize("index", [
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.{}.json",
    "diffusion_pytorch_model.safetensors.{}.index.json",
    "diffusion_pytorch_model.{}.safetensors.index.json",
])
@pytest.mark.parametrize("variant", ["bf16", "non_ema"])
def test_shards_of_a_variant(saved, variant, index):
    model, folder = saved
    state = read_weights(folder / AutoencoderKL.weights_name)
    (folder / AutoencoderKL.weights_name).unlink()
    places = {}
    for i, names in enumerate([list(state)[::2], list(state)[1::2]]):
        file = f"diffusion_pytorch_model.{variant}-0000{i + 1}-of-00002.safetensors"
        write_weights(folder / file, {name: state[name] for name in names})
        places |= dict.fromkeys(names, file)
    (folder / index.format(variant)).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    again = AutoencoderKL.from_pretrained(folder)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)


def test_of_several_variants_the_plain_one_is_read_or_that_with_most_bits(saved):
    model, folder = saved
    change = model.state_dict() | {"quant_conv.bias": np.full(4, 9, "f")}
    plain = folder / AutoencoderKL.weights_name

    def bias():
        again = AutoencoderKL.from_pretrained(folder)
        return again.state_dict()["quant_conv.bias"][0], again.passed_over

    write_weights(folder / "diffusion_pytorch_model.non_ema.safetensors", change)
    assert bias() == (model.state_dict()["quant_conv.bias"][0], [])
    plain.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(UserError, match=r"holds the variants fp16, non_ema and no diffusion_pytorch_model.safetensors"):
        bias()
    (folder / "diffusion_pytorch_model.non_ema.safetensors").rename(folder / "diffusion_pytorch_model.fp32.safetensors")
    assert bias() == (9, ["of the variants fp16, fp32 took fp32"])
    again = AutoencoderKL.from_pretrained(folder, variant="fp16")
    assert again.passed_over == [] and again.state_dict()["quant_conv.bias"][0] != 9
    with pytest.raises(UserError, match="has no variant 'bf16' of its weights, only fp16, fp32"):
        AutoencoderKL.from_pretrained(folder, variant="bf16")
