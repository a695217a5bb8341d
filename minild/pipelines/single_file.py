"""Stable Diffusion 1.x in one file, as first published: all three models under the names of the original code.

Such a file holds no config and no tokenizer. The configs are Stable Diffusion's own; the tokenizer is a folder beside.
"""

from minild.diffusion import NoiseSchedule
from minild.errors import UserError
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from minild.models.model import extras_phrase
from minild.tokenizer import CLIPTokenizer
from minild.weights import open_safetensors

BLOCKS, UNET_LAYERS, VAE_LAYERS = 4, 2, 2  # of both models; a decoder's block has a layer more

CONFIGS = {
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": VAE_LAYERS,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
    },
    "unet": {
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": UNET_LAYERS,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
}
MODELS = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}
PREFIXES = {
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
    "unet": "model.diffusion_model.",
}
OTHER_FAMILIES = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
}


def under(old, new, names):
    """A table's rows for the parts of one module, called `old` there and `new` here."""
    return {f"{old}.{theirs}": f"{new}.{ours}" for theirs, ours in names.items()}


def unet_names():
    """{what the start of a key was in the original U-Net: what it is here}; the rest of the key stays."""
    resnet = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "middle_block.1": "mid_block.attentions.0",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    names |= under("middle_block.0", "mid_block.resnets.0", resnet)
    names |= under("middle_block.2", "mid_block.resnets.1", resnet)
    # The original numbers the layers of all blocks in one row: conv_in, then a block's layers and its downsampler.
    for i in range(BLOCKS):
        for j in range(UNET_LAYERS):
            old = f"input_blocks.{1 + i * (UNET_LAYERS + 1) + j}"
            names |= under(f"{old}.0", f"down_blocks.{i}.resnets.{j}", resnet)
            names[f"{old}.1"] = f"down_blocks.{i}.attentions.{j}"
        names[f"input_blocks.{(i + 1) * (UNET_LAYERS + 1)}.0.op"] = f"down_blocks.{i}.downsamplers.0.conv"
        for j in range(UNET_LAYERS + 1):
            old = f"output_blocks.{i * (UNET_LAYERS + 1) + j}"
            names |= under(f"{old}.0", f"up_blocks.{i}.resnets.{j}", resnet)
            names[f"{old}.1"] = f"up_blocks.{i}.attentions.{j}"
        # The upsampler stands with the block's last layer, after its resnet and the attention that it may have.
        names |= {f"{old}.{place}.conv": f"up_blocks.{i}.upsamplers.0.conv" for place in (1, 2)}
    return names


def vae_names():
    """As unet_names, of the original autoencoder."""
    resnet = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
    attention = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        names |= under(side, side, {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"})
        names |= under(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0", resnet)
        names |= under(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", attention)
        names |= under(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1", resnet)
    for i in range(BLOCKS):
        for j in range(VAE_LAYERS):
            names |= under(f"encoder.down.{i}.block.{j}", f"encoder.down_blocks.{i}.resnets.{j}", resnet)
        names[f"encoder.down.{i}.downsample"] = f"encoder.down_blocks.{i}.downsamplers.0"
        up = BLOCKS - 1 - i  # the original numbers the decoder's blocks by resolution, and passes them backwards
        for j in range(VAE_LAYERS + 1):
            names |= under(f"decoder.up.{up}.block.{j}", f"decoder.up_blocks.{i}.resnets.{j}", resnet)
        names[f"decoder.up.{up}.upsample"] = f"decoder.up_blocks.{i}.upsamplers.0"
    return names


NAMES = {"vae": vae_names(), "text_encoder": {}, "unet": unet_names()}  # the text encoder's are the same


def our_key(part, key):
    """Our name of a key of the whole file for the model `part`; None if it is none of that model's weights.

    A key that no table knows stays as it is: it is of what training alone needs, or refused by its name.
    """
    prefix, names = PREFIXES[part], NAMES[part]
    if not key.startswith(prefix):
        return None
    key = key.removeprefix(prefix)
    start = key
    while start and start not in names:  # from the longest start to the shortest
        start = start.rpartition(".")[0]
    return names[start] + key[len(start) :] if start else key


def open_single_file(path):
    """({part: the Weights of that model, under our keys}, the CLIPTokenizer beside, phrases to tell) of such a file.

    UserError for a file of another family, one that is not whole, or no tokenizer.
    """
    weights = open_safetensors(path)
    for start, family in OTHER_FAMILIES.items():
        if any(key.startswith(start) for key in weights):
            raise UserError(f"{path} is {family}, which is not supported: use Stable Diffusion 1.x")
    for part, prefix in PREFIXES.items():
        if not any(key.startswith(prefix) for key in weights):
            raise UserError(f"{path} is no whole Stable Diffusion 1.x: it has no {part}, no keys {prefix}*")
    folder = path.parent / "tokenizer"
    if not folder.is_dir():
        raise UserError(f"{path} needs a tokenizer: put Stable Diffusion's folder `tokenizer` beside it, as {folder}")
    parts, beside = {}, [key for key in weights if not key.startswith(tuple(PREFIXES.values()))]
    for part, model in MODELS.items():
        mine = weights.renamed(lambda key, part=part: our_key(part, key))
        parts[part], more = model.own_weights(model.complete_config(CONFIGS[part]), mine)
        beside += [PREFIXES[part] + key for key in more]
    return parts, CLIPTokenizer.from_pretrained(folder), extras_phrase(beside, "weight", "weights")


def read_single_file(path, dtype, device):
    """{part: what Pipeline takes for it} of such a file. UserError as open_single_file, and for weights of no fit."""
    weights, tokenizer, passed_over = open_single_file(path)
    parts = {"tokenizer": tokenizer, "schedule": NoiseSchedule(), "passed_over": passed_over}
    for part, model in MODELS.items():
        parts[part] = model.from_weights(CONFIGS[part], weights[part], path, dtype, device)
    return parts
