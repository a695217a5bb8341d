"""Whatever holds Stable Diffusion 1.x: folders in all forms, the original single file; other families are named."""

import json

import narrow_sd1
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minild import pipelines
from minild.errors import UserError
from minild.pipelines import single_file
from minild.pipelines.info import describe

MODELS = ("vae", "text_encoder", "unet")


@pytest.fixture(scope="module")
def narrow():
    return narrow_sd1.make()


@pytest.fixture
def file(narrow, tmp_path, monkeypatch):
    """The narrow pipeline as a single file; Stable Diffusion's widths are taken to be its."""
    monkeypatch.setattr(single_file, "CONFIGS", {part: getattr(narrow, part).config for part in MODELS})
    path = tmp_path / "v1-5-pruned-emaonly.safetensors"
    narrow_sd1.write(narrow, path)
    return path


def assert_same_weights(pipe, expected, dtype="float32"):
    for part in MODELS:
        ours, theirs = getattr(pipe, part).state_dict(), getattr(expected, part).state_dict()
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, theirs[name].astype(dtype))


ONE = np.zeros(1, np.float32)


def change(path, **entries):
    """The file's tensors with some put in; None takes one out."""
    state = load_file(path) | entries
    save_file({key: array for key, array in state.items() if array is not None}, path)


KEYS = {  # as files of Stable Diffusion 1 have them
    "model.diffusion_model.time_embed.2.bias": "time_embedding.linear_2.bias",
    "model.diffusion_model.input_blocks.0.0.weight": "conv_in.weight",
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight": "down_blocks.0.resnets.0.conv1.weight",
    "model.diffusion_model.input_blocks.2.1.proj_in.weight": "down_blocks.0.attentions.1.proj_in.weight",
    "model.diffusion_model.input_blocks.3.0.op.weight": "down_blocks.0.downsamplers.0.conv.weight",
    "model.diffusion_model.input_blocks.4.0.skip_connection.bias": "down_blocks.1.resnets.0.conv_shortcut.bias",
    "model.diffusion_model.input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight":
        "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight",
    "model.diffusion_model.input_blocks.9.0.op.bias": "down_blocks.2.downsamplers.0.conv.bias",
    "model.diffusion_model.input_blocks.11.0.emb_layers.1.weight": "down_blocks.3.resnets.1.time_emb_proj.weight",
    "model.diffusion_model.middle_block.0.out_layers.3.weight": "mid_block.resnets.0.conv2.weight",
    "model.diffusion_model.middle_block.1.norm.weight": "mid_block.attentions.0.norm.weight",
    "model.diffusion_model.middle_block.2.in_layers.0.bias": "mid_block.resnets.1.norm1.bias",
    "model.diffusion_model.output_blocks.0.0.out_layers.0.weight": "up_blocks.0.resnets.0.norm2.weight",
    "model.diffusion_model.output_blocks.2.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
    "model.diffusion_model.output_blocks.5.1.proj_out.bias": "up_blocks.1.attentions.2.proj_out.bias",
    "model.diffusion_model.output_blocks.5.2.conv.bias": "up_blocks.1.upsamplers.0.conv.bias",
    "model.diffusion_model.output_blocks.8.2.conv.weight": "up_blocks.2.upsamplers.0.conv.weight",
    "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight":
        "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
    "model.diffusion_model.out.0.weight": "conv_norm_out.weight",
    "model.diffusion_model.out.2.weight": "conv_out.weight",
    "first_stage_model.encoder.conv_in.weight": "encoder.conv_in.weight",
    "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight":
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
    "first_stage_model.encoder.down.2.downsample.conv.bias": "encoder.down_blocks.2.downsamplers.0.conv.bias",
    "first_stage_model.encoder.mid.attn_1.norm.weight": "encoder.mid_block.attentions.0.group_norm.weight",
    "first_stage_model.decoder.mid.attn_1.proj_out.weight": "decoder.mid_block.attentions.0.to_out.0.weight",
    "first_stage_model.decoder.mid.block_2.norm2.bias": "decoder.mid_block.resnets.1.norm2.bias",
    "first_stage_model.decoder.up.3.upsample.conv.weight": "decoder.up_blocks.0.upsamplers.0.conv.weight",
    "first_stage_model.decoder.up.0.block.2.conv1.weight": "decoder.up_blocks.3.resnets.2.conv1.weight",
    "first_stage_model.decoder.norm_out.bias": "decoder.conv_norm_out.bias",
    "first_stage_model.post_quant_conv.weight": "post_quant_conv.weight",
    "cond_stage_model.transformer.text_model.final_layer_norm.bias": "text_model.final_layer_norm.bias",
}


@pytest.mark.parametrize(("old", "new"), KEYS.items())
def test_original_keys(old, new):
    parts = [part for part in MODELS if single_file.our_key(part, old)]
    assert len(parts) == 1
    assert single_file.our_key(parts[0], old) == new


def test_what_belongs_to_no_model_is_told_and_left_out(narrow, file):
    """The schedule's numbers, the optimiser's, moving averages, a loss with networks of its own, the whole of CLIP."""
    beside = [
        "betas", "sqrt_alphas_cumprod", "model_ema.diffusion_modelout2bias", "model_ema.num_updates", "state.0.exp_avg",
        "first_stage_model.loss.discriminator.main.0.weight", "first_stage_model.loss.perceptual_loss.lin0.weight",
        "first_stage_model.model_ema.decay", "first_stage_model.model_ema.encoderconv_inweight",
        "cond_stage_model.logit_scale", "cond_stage_model.transformer.logit_scale",
        "cond_stage_model.transformer.text_projection.weight", "cond_stage_model.transformer.visual_projection.weight",
        "cond_stage_model.transformer.vision_model.embeddings.position_ids",
    ]
    narrow_sd1.write(narrow, file, **{key: ONE for key in beside})
    pipe = pipelines.load(file)
    assert_same_weights(pipe, narrow)
    held = len(beside) + len(narrow_sd1.TRAINING) - 1  # the positions are known, and no parameter
    assert len(pipe.passed_over) == 1 and pipe.passed_over[0].startswith(f"passed over {held} weights: ")
    change(file, **{f"key{i}": ONE for i in range(1000)})
    told = pipelines.load(file).passed_over[0]
    assert told.startswith(f"passed over {held + 1000:,} weights: ") and len(told) < 200


@pytest.mark.parametrize("key", [
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
    "model.diffusion_model.lora_unet_mid.alpha",
    "first_stage_model.decoder.temporal.weight",
    "cond_stage_model.transformer.text_model.encoder.layers.0.adapter.weight",
])
def test_what_would_change_the_result_is_no_such_weight(file, key):
    change(file, **{key: ONE})
    with pytest.raises(UserError, match=r"unknown .*(lora|temporal|adapter)"):
        pipelines.load(file)


def test_the_configs_are_stable_diffusions():
    counts = {}
    for part, model in single_file.MODELS.items():
        built = model(model.complete_config(single_file.CONFIGS[part]))
        counts[part] = (built.parameter_count(), len(built.parameters()))
    assert counts == {"vae": (83_653_863, 248), "text_encoder": (123_060_480, 196), "unet": (859_520_964, 686)}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_single_file_is_the_pipeline(narrow, file, dtype):
    narrow_sd1.write(narrow, file, dtype)
    pipe = pipelines.load(file)
    assert_same_weights(pipe, narrow, dtype)
    if dtype == "float32":
        drawn = [p.text_to_image("a red circle", steps=2) for p in (pipe, narrow)]
        np.testing.assert_array_equal(*drawn)
    assert pipe.schedule.config == narrow.schedule.config
    half = pipelines.load(str(file), dtype="float16")
    assert {p.data.dtype for p in half.unet.parameters()} == {np.dtype("float16")}


def test_a_single_file_becomes_a_folder(narrow, file, tmp_path):
    pipelines.load(file).save_pretrained(tmp_path / "folder")
    assert_same_weights(pipelines.load(tmp_path / "folder"), narrow)


def test_a_single_file_without_a_tokenizer_says_what_to_put_where(file):
    (file.parent / "tokenizer").rename(file.parent / "elsewhere")
    with pytest.raises(UserError, match=r"put Stable Diffusion's folder `tokenizer` beside it, as .*tokenizer$"):
        pipelines.load(file)


@pytest.mark.parametrize(("entries", "message"), [
    ({"conditioner.embedders.0.x": ONE}, "is Stable Diffusion XL, which is not supported"),
    ({"cond_stage_model.model.x": ONE}, "is Stable Diffusion 2, which is not supported"),
    ({"model.diffusion_model.joint_blocks.0.x": ONE}, "is Stable Diffusion 3, which is not supported"),
    ({"model.diffusion_model.label_emb.0.0.weight": ONE}, r"unknown label_emb\.0\.0\.weight"),
    ({"model.diffusion_model.input_blocks.0.0.bias": None}, r"missing conv_in\.bias"),
    ({"model.diffusion_model.out.2.weight": np.zeros((4, 8, 1, 1), np.float32)},
     r"conv_out\.weight has shape \(4, 8, 1, 1\), expected \(4, 8, 3, 3\)"),
    ({"model.diffusion_model.input_blocks.0.0.weight": np.zeros((8, 9, 3, 3), np.float32)},
     r"conv_in\.weight has shape \(8, 9, 3, 3\), expected \(8, 4, 3, 3\)"),  # an inpainting model
])
def test_a_single_file_of_something_else_is_named(file, entries, message):
    change(file, **entries)
    with pytest.raises(UserError, match=message) as caught:
        pipelines.load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_single_file_of_one_model_is_refused(narrow, file):
    save_file(narrow.unet.state_dict(), file)
    with pytest.raises(UserError, match=r"it has no vae, no keys first_stage_model\.\*"):
        pipelines.load(file)


def test_broken_and_pickled_files_are_refused(file, tmp_path):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        pipelines.load(file)
    file.rename(tmp_path / "sd-v1-4.ckpt")
    with pytest.raises(UserError, match=r"sd-v1-4\.ckpt is a pickle, which can run any code"):
        pipelines.load(tmp_path / "sd-v1-4.ckpt")
    with pytest.raises(UserError, match="is no pipeline: expected a folder"):
        pipelines.load(tmp_path / "nowhere.safetensors")


@pytest.fixture
def folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_folder_of_half_precision_variants(pipe, folder):
    """Written by the reference with variant="fp16"; `info` tells of it too."""
    pipe.save_pretrained(folder, dtype="float16")
    for part in MODELS:
        path = next((folder / part).glob("*.safetensors"))
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert_same_weights(pipelines.load(folder), pipe, "float16")
    assert f"{pipe.unet.parameter_count():,} parameters, float16" in "\n".join(describe(folder))


def test_a_variant_that_is_asked_for_is_read_where_a_model_has_it(pipe, folder):
    """As the reference's pipelines: the U-Net's, and the plain weights of what has no such variant."""
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(unet)
    state["conv_in.bias"] += 1
    save_file(state, unet.with_suffix(".non_ema.safetensors"))
    plain, variant = (pipelines.load(folder, variant=name) for name in (None, "non_ema"))
    assert_same_weights(plain, pipe)
    assert plain.passed_over == variant.passed_over == []
    for part in ("vae", "text_encoder"):
        for name, array in getattr(pipe, part).state_dict().items():
            np.testing.assert_array_equal(getattr(variant, part).state_dict()[name], array)
    np.testing.assert_array_equal(variant.unet.state_dict()["conv_in.bias"], state["conv_in.bias"])
    unet.unlink()
    assert pipelines.load(folder).passed_over == ["unet: took the variant non_ema"]
    assert "unet          took the variant non_ema" in describe(folder)
    for call in (pipelines.load, describe):
        with pytest.raises(UserError, match=r"has no variant '\.\./fp16' of any weights, only non_ema$"):
            call(folder, variant="../fp16")


def test_a_single_file_has_no_variants(file):
    for call in (pipelines.load, describe):
        with pytest.raises(UserError, match="is a single file, which has no variants"):
            call(file, variant="fp16")


def test_info_tells_of_weights_that_cannot_be_read(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    name, entry = next((k, e) for k, e in header.items() if k != "__metadata__" and len(e["shape"]) == 4)
    header[name] = entry | {"dtype": "F8_E4M3", "shape": [4 * entry["shape"][0], *entry["shape"][1:]]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    assert "parameters, float32 and 'F8_E4M3' (cannot be read), " in "\n".join(describe(folder))
    with pytest.raises(UserError, match=rf"{name} has the dtype 'F8_E4M3', which is not"):
        pipelines.load(folder)


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


VIDEO = {"unet": ["diffusers", "UNet3DConditionModel"], "_class_name": "TextToVideoSDPipeline"}
STABLE_VIDEO = {
    "_class_name": "StableVideoDiffusionPipeline",
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "text_encoder": None,
}
XL = {
    "_class_name": "StableDiffusionXLPipeline",
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
FLUX = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}


@pytest.mark.parametrize(("fields", "message"), [
    (VIDEO, "unet is 'UNet3DConditionModel', which is not supported, use 'UNet2DConditionModel'"),
    (STABLE_VIDEO, "vae is 'AutoencoderKLTemporalDecoder', which is not supported"),
    (XL, "StableDiffusionXLPipeline with a part text_encoder_2 is no Stable Diffusion 1.x"),
    (FLUX, "FluxPipeline with a part transformer is no Stable Diffusion 1.x"),
    ({"text_encoder": ["transformers", "T5EncoderModel"]}, "text_encoder is 'T5EncoderModel', which is not supported"),
    ({"text_encoder": None}, "names no text_encoder"),
])
def test_a_pipeline_of_another_family_is_named(folder, fields, message):
    edit(folder / "model_index.json", **fields)
    with pytest.raises(UserError, match=message) as caught:
        pipelines.load(folder)
    assert "\n" not in str(caught.value)


def test_parts_that_change_no_picture_are_passed_over(pipe, folder):
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    extractor = ["transformers", "CLIPImageProcessor"]
    edit(folder / "model_index.json", safety_checker=checker, feature_extractor=extractor)
    assert_same_weights(pipelines.load(folder), pipe)


def test_a_unet_of_another_family_in_a_right_index_is_named(folder):
    edit(folder / "unet" / "config.json", addition_embed_type="text_time", projection_class_embeddings_input_dim=2816)
    with pytest.raises(UserError, match="addition_embed_type = 'text_time' is not supported"):
        pipelines.load(folder)
    edit(folder / "unet" / "config.json", _class_name="UNetMotionModel")
    with pytest.raises(UserError, match="class 'UNetMotionModel', which is not supported: use UNet2DConditionModel"):
        pipelines.load(folder)


def test_a_config_too_large_for_the_machine_is_refused(folder):
    """It says 2^48 tokens; the weights are small."""
    edit(folder / "text_encoder" / "config.json", vocab_size=2**48)
    with pytest.raises(UserError, match="CLIPTextModel: vocab_size"):
        pipelines.load(folder)
