"""Folders with more in them than the model, and under other names, written by the reference and read by us."""

import inspect
import json
import re
import shutil

import numpy as np
import pytest
from models.tiny import AUTOENCODER, TEXT, UNET, VQ

from minild import models
from minild.errors import UserError
from parity.reference import REFERENCES, diffusers, make_reference, torch, transformers

safetensors_torch = pytest.importorskip("safetensors.torch")
load_file, save_file = safetensors_torch.load_file, safetensors_torch.save_file
CONFIGS = {"UNet2DConditionModel": UNET, "AutoencoderKL": AUTOENCODER, "VQModel": VQ, "CLIPTextModel": TEXT}
pytestmark = pytest.mark.filterwarnings("ignore:This serialization format is now deprecated")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{name: a folder that the reference wrote}; never to be changed."""
    folder = tmp_path_factory.mktemp("written")
    for name, config in CONFIGS.items():
        make_reference(name, config, np.random.default_rng(7)).save_pretrained(folder / name)
    return {name: folder / name for name in CONFIGS}


def changed(written, folder, name, fields=(), weights=()):
    """A copy of the folder with these fields and weights in it, too."""
    shutil.copytree(written[name], folder)
    path, file = folder / "config.json", folder / getattr(models, name).weights_name
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(fields)))
    state = load_file(file) | {key: tensor.clone() for key, tensor in dict(weights).items()}
    save_file(state, file, metadata={"format": "pt"})
    return folder


def assert_same_weights(ours, theirs):
    """Equal to the last bit, and as many."""
    expected = {key.removeprefix("text_model."): tensor for key, tensor in theirs.state_dict().items()}
    state = ours.state_dict()
    assert state.keys() == expected.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(array, expected[key].float().numpy().reshape(array.shape), key)


def assert_read_alike(folder, name, **options):
    """-> our model, of a folder that either library reads as the same weights."""
    ours = getattr(models, name).from_pretrained(folder, **options)
    assert_same_weights(ours, REFERENCES[name].from_pretrained(folder, **options))
    return ours


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_that_the_reference_knows_is_known(name):
    """So that a field passed over is one that the reference passes over, too."""
    theirs = transformers.CLIPTextConfig if name == "CLIPTextModel" else getattr(diffusers, name)
    fields = inspect.signature(theirs.__init__).parameters.keys() - {"self", "args", "kwargs"}
    ours = getattr(models, name)
    assert len(fields) > 10
    assert fields <= {*ours.defaults, *ours.only, *ours.inert, *ours.unused}


AUTOENCODER_FIELDS = {"force_upcast": [False, None]}
CHANGE_NOTHING = {
    "UNet2DConditionModel": {
        "upcast_attention": [True, None],
        "dropout": [0.5],
        "resnet_skip_time_act": [True],
        "resnet_out_scale_factor": [2.0],
        "mid_block_only_cross_attention": [True],
        "cross_attention_norm": ["layer_norm"],
        "addition_embed_type_num_heads": [3, None],
        "addition_time_embed_dim": [256],
    },
    "AutoencoderKL": AUTOENCODER_FIELDS | {"latents_mean": [[1, 2]], "latents_std": [[3, 4]], "shift_factor": [0.5]},
    "VQModel": AUTOENCODER_FIELDS,
    "CLIPTextModel": {
        "attention_dropout": [0.5, 0],
        "dropout": [0.5],
        "initializer_range": [9.0],
        "projection_dim": [3, None],
        "bos_token_id": [None, 3],
        "eos_token_id": [2, 3],
        "pad_token_id": [None],
        "architectures": [["CLIPModel"], None],
        "is_encoder_decoder": [True],
        "model_type": ["clip", "bert"],
        "torch_dtype": ["float16"],
    },
}


def output(name, model):
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    with torch.no_grad():
        if name == "UNet2DConditionModel":
            return model(x, torch.tensor([5.0, 700.0]), torch.linspace(-2, 2, 2 * 5 * 6).reshape(2, 5, 6)).sample
        return model(torch.arange(7)[None]).last_hidden_state if name == "CLIPTextModel" else model(x).sample


@pytest.mark.parametrize("name", CHANGE_NOTHING)
def test_fields_of_no_effect_have_none_in_the_reference(written, tmp_path, name):
    ours = getattr(models, name)
    assert CHANGE_NOTHING[name].keys() <= {*ours.inert, *ours.unused, *ours.free}
    assert name == "CLIPTextModel" or CHANGE_NOTHING[name].keys() == {*ours.inert, *ours.unused}
    expected = output(name, REFERENCES[name].from_pretrained(written[name]).float())
    for field, values in CHANGE_NOTHING[name].items():
        for i, value in enumerate(values):
            folder = changed(written, tmp_path / f"{field}{i}", name, {field: value})
            assert torch.equal(output(name, REFERENCES[name].from_pretrained(folder).float()), expected), field
            told = ours.from_pretrained(folder).passed_over
            assert told == ([f"passed over 1 field of config.json: {field}"] if field in ours.unused else [])


@pytest.mark.parametrize(("field", "value"), [
    ("center_input_sample", None),
    ("dual_cross_attention", None),
    ("class_embeddings_concat", None),
    ("use_linear_projection", None),
    ("attention_type", None),
    ("reverse_transformer_layers_per_block", [1, 1]),
    ("mid_block_scale_factor", 1.0),
])
def test_other_spellings_of_the_default(written, tmp_path, field, value):
    name = "UNet2DConditionModel"
    folder = changed(written, tmp_path / "a", name, {field: value})
    assert assert_read_alike(folder, name).passed_over == []
    theirs = [output(name, REFERENCES[name].from_pretrained(path)) for path in (folder, written[name])]
    assert torch.equal(*theirs)


EMA = {"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 5, "power": 0.66,
       "update_after_step": 0, "use_ema_warmup": False}
UNKNOWN_FIELDS = {
    "UNet2DConditionModel": [EMA, {"colour": 3}, {"": None}, {"line\nbreak": [1]}],
    "AutoencoderKL": [EMA, {"temporal_compression_ratio": 4, "norm_type": "group"}],
    "VQModel": [EMA, {"shift_factor": 1}],
    "CLIPTextModel": [EMA, {"use_cache": True, "pruned_heads": {"0": [1]}, "top_k": 50, "bad_words_ids": None},
                      {"gradient_checkpointing": False, "is_decoder": True, "tie_word_embeddings": False}],
}


@pytest.mark.parametrize(("name", "fields"), [(name, f) for name, several in UNKNOWN_FIELDS.items() for f in several])
def test_fields_that_the_reference_does_not_know(written, tmp_path, name, fields):
    told = assert_read_alike(changed(written, tmp_path / "a", name, fields), name).passed_over
    assert len(told) == 1 and told[0].startswith(f"passed over {len(fields)} field") and "\n" not in told[0]


ONE = torch.ones(2)
F8 = {kind: torch.ones(3).to(getattr(torch, kind)) for kind in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")}
TRAINING = {"step": torch.tensor(3), "optimizer.state.0.exp_avg": ONE, "model_ema.decay": ONE, "ema.shadow.0": ONE}
CLIP = {"text_projection.weight": torch.ones(8, 8), "logit_scale": torch.tensor(4.6), "visual_projection.weight": ONE,
        "vision_model.embeddings.class_embedding": ONE, "vision_model.encoder.layers.0.mlp.fc1.weight": ONE}
BESIDE = {
    "UNet2DConditionModel": [TRAINING, F8, {"c": torch.ones(2, dtype=torch.complex64)}],
    "AutoencoderKL": [TRAINING, {"loss.logvar": ONE, "loss.discriminator.main.0.weight": ONE}, F8],
    "VQModel": [TRAINING, {"loss.perceptual_loss.lin0.weight": ONE}],
    "CLIPTextModel": [TRAINING, CLIP, F8, {"logit_bias": torch.tensor(1, dtype=torch.int8)}],
}


@pytest.mark.parametrize(("name", "weights"), [(name, w) for name, several in BESIDE.items() for w in several])
def test_weights_of_parts_that_the_model_does_not_have(written, tmp_path, name, weights):
    told = assert_read_alike(changed(written, tmp_path / "a", name, weights=weights), name).passed_over
    count = len(weights)
    assert len(told) == 1 and told[0].startswith(f"passed over {count} weight{'s' if count > 1 else ''}: ")


def test_position_ids_are_no_news(written, tmp_path):
    for i, prefix in enumerate(("text_model.", "")):
        weights = {f"{prefix}embeddings.position_ids": torch.arange(7)[None]}
        folder = changed(written, tmp_path / str(i), "CLIPTextModel", weights=weights)
        assert assert_read_alike(folder, "CLIPTextModel").passed_over == []


@pytest.mark.parametrize(("name", "key"), [
    ("UNet2DConditionModel", "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight"),
    ("UNet2DConditionModel", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"),
    ("UNet2DConditionModel", "lora_unet_mid_block_attentions_0_proj_in.alpha"),
    ("UNet2DConditionModel", "class_embedding.linear_1.weight"),
    ("UNet2DConditionModel", "add_embedding.linear_1.weight"),
    ("UNet2DConditionModel", "encoder_hid_proj.weight"),
    ("UNet2DConditionModel", "time_embedding.cond_proj.weight"),
    ("UNet2DConditionModel", "ip_adapter.1.to_k_ip.weight"),
    ("AutoencoderKL", "decoder.mid_block.temporal.weight"),
    ("CLIPTextModel", "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"),
    ("CLIPTextModel", "encoder.layers.0.self_attn.q_proj.lora_B.weight"),
])
def test_weights_that_are_meant_to_change_the_result_are_named(written, tmp_path, name, key):
    """The reference drops them, with a warning."""
    folder = changed(written, tmp_path / "a", name, weights={key: ONE})
    with pytest.raises(UserError, match=f"unknown {re.escape(key)}"):
        getattr(models, name).from_pretrained(folder)


WANTED = {"UNet2DConditionModel": "conv_in.bias", "AutoencoderKL": "quant_conv.bias", "VQModel": "quant_conv.bias",
          "CLIPTextModel": "final_layer_norm.bias"}


@pytest.mark.parametrize(("dtype", "message"), [
    ("int8", "{} holds int8, expected floating point"),
    ("int64", "{} holds int64, expected floating point"),
    ("bool", "{} holds bool, expected floating point"),
    ("float8_e4m3fn", "{} has the dtype 'F8_E4M3', which is not supported"),
    ("float8_e5m2", "{} has the dtype 'F8_E5M2', which is not supported"),
    ("complex64", "{} has the dtype 'C64', which is not supported"),
])
@pytest.mark.parametrize("name", WANTED)
def test_a_weight_that_is_needed_is_named_with_its_dtype(written, tmp_path, name, dtype, message):
    """The reference has an error for whole numbers in its own models; the rest it casts, whatever that makes of it."""
    state = load_file(written[name] / getattr(models, name).weights_name)
    key = next(key for key in state if WANTED[name] in key)
    folder = changed(written, tmp_path / "a", name, weights={key: state[key].to(getattr(torch, dtype))})
    with pytest.raises(UserError, match=message.format(re.escape(key))):
        getattr(models, name).from_pretrained(folder)


@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPTextModelWithProjection"])
def test_the_text_encoder_of_a_larger_clip(tmp_path, kind):
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 4, "patch_size": 2}
    config = transformers.CLIPTextConfig(**TEXT)
    if kind == "CLIPModel":
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=8)
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    told = assert_read_alike(tmp_path, "CLIPTextModel").passed_over
    assert any("text_projection.weight" in phrase for phrase in told)


def shard(folder, name, theirs, variant):
    """Have the reference write `theirs` in shards -> the index."""
    size = sum(parameter.numel() for parameter in theirs.parameters()) * 4
    theirs.save_pretrained(folder, variant=variant, max_shard_size=size // 3)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return next(folder.glob("*.index*.json"))


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("variant", [None, "bf16", "fp16", "fp32", "non_ema", "ema", "v1.5-mine"])
@pytest.mark.parametrize("name", ["UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel"])
def test_variants_whole_and_sharded(written, tmp_path, name, variant, shards):
    theirs = REFERENCES[name].from_pretrained(written[name])
    if shards:
        shard(tmp_path, name, theirs, variant)
    else:
        theirs.save_pretrained(tmp_path, variant=variant)
    assert variant is None or all(f".{variant}" in path.name for path in tmp_path.glob("*.safetensors"))
    assert_same_weights(getattr(models, name).from_pretrained(tmp_path), theirs)
    if variant != "v1.5-mine" or not shards:  # the reference does not read what it writes
        assert_read_alike(tmp_path, name, variant=variant)


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "CLIPTextModel"])
def test_the_file_names_that_the_reference_once_gave(written, tmp_path, name):
    """stem-00001-of-00002.fp16.safetensors, and an index stem.safetensors.fp16.index.json."""
    theirs = REFERENCES[name].from_pretrained(written[name])
    index = shard(tmp_path, name, theirs, "fp16")
    text = re.sub(r"\.fp16(-\d{5}-of-\d{5})", r"\1.fp16", index.read_text())
    for path in tmp_path.glob("*.safetensors"):
        path.rename(tmp_path / re.sub(r"\.fp16(-\d{5}-of-\d{5})", r"\1.fp16", path.name))
    index.unlink()
    (tmp_path / f"{getattr(models, name).weights_name}.fp16.index.json").write_text(text)
    assert_same_weights(getattr(models, name).from_pretrained(tmp_path), theirs)
    if name != "CLIPTextModel":  # which was never written so
        assert_read_alike(tmp_path, name, variant="fp16")


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "CLIPTextModel"])
def test_where_a_file_and_shards_lie_the_same_is_taken(written, tmp_path, name):
    """diffusers takes the shards, transformers the file."""
    shard(tmp_path, name, make_reference(name, CONFIGS[name], np.random.default_rng(8)), None)
    shutil.copy(written[name] / getattr(models, name).weights_name, tmp_path)
    assert_read_alike(tmp_path, name)


def test_of_several_variants_the_reference_takes_the_plain_one_or_the_one_asked_for(written, tmp_path, rng):
    for variant in (None, "fp16", "non_ema"):
        make_reference("UNet2DConditionModel", UNET, rng).save_pretrained(tmp_path, variant=variant)
    states = [assert_read_alike(tmp_path, "UNet2DConditionModel", variant=v) for v in (None, "fp16", "non_ema")]
    assert len({model.state_dict()["conv_in.bias"].tobytes() for model in states}) == 3


@pytest.mark.parametrize("name", CONFIGS)
def test_what_we_write_with_such_extras_the_reference_opens(written, tmp_path, name):
    ours = getattr(models, name).from_pretrained(changed(written, tmp_path / "a", name, EMA, {"step": ONE}))
    ours.save_pretrained(tmp_path / "b")
    assert_same_weights(ours, REFERENCES[name].from_pretrained(tmp_path / "b"))
    assert getattr(models, name).from_pretrained(tmp_path / "b").passed_over == []
