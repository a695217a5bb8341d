"""A pipeline of a few thousand random weights: everything a real one has, at once."""

import numpy as np

from minild.diffusion import NoiseSchedule
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel, VQModel
from minild.pipelines import Pipeline
from minild.pipelines.low_resolution import usual_augmentation
from minild.tokenizer import CLIPTokenizer

CAPTIONS = ["a red circle above a blue square on a white background", "a green star left of a pink triangle"]
LENGTH = 14
RECORD = {
    "dataset": "shapes",
    "size": 8,
    "command": "minild train shapes --output tiny",
    "seed": 3,
    "stages": {"autoencoder": {"steps": 1200, "seconds": 31.5}, "diffusion": {"steps": 3400, "seconds": 62.0}},
    "date": "2026-11-24",
}


def make(seed=0, record=None):
    """Pictures 8 x 8, latents 4 x 4 x 2, f = 2; no weight is zero, as the first of the U-Net's would be."""
    tokenizer = CLIPTokenizer.train(CAPTIONS, vocab_size=640, max_length=LENGTH)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    unet = {
        "sample_size": 4,
        "in_channels": 2,
        "out_channels": 2,
        "block_out_channels": [8, 16],
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
    }
    vae = {
        "block_out_channels": [4, 8],
        "norm_num_groups": 4,
        "latent_channels": 2,
        "sample_size": 8,
        "scaling_factor": 0.7,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    models = AutoencoderKL.from_config(vae), CLIPTextModel.from_config(text), UNet2DConditionModel.from_config(unet)
    rng = np.random.default_rng(seed)
    for model in models:
        for parameter in model.parameters():
            deviation = 0.05 if parameter.data.ndim == 1 else parameter.data[..., 0].size ** -0.5
            parameter.data = parameter.data + rng.standard_normal(parameter.data.shape, np.float32) * deviation
            parameter.data = parameter.data.astype(np.float32)
    vae, text_encoder, unet = models
    return Pipeline(vae, text_encoder, tokenizer, unet, NoiseSchedule(), record)


def make_led(condition, classes=(), words=False, **fields):
    """The same, led by something else than words, or beside them; fields: what its U-Net's config says of that."""
    pipe, rng = make(), np.random.default_rng(1)
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | fields)
    for parameter in pipe.unet.parameters():
        parameter.data = parameter.data + 0.2 * rng.standard_normal(parameter.data.shape, np.float32)
    pipe.record = {"condition": f"text+{condition}" if words else condition, "classes": list(classes)}
    if not words:
        pipe.text_encoder = pipe.tokenizer = None
    return pipe


def make_upscaler(words=True, highest=350, labels=351):
    """The same as one that upscales: pictures of 4 x 4, and words; without labels it is told no noise level."""
    pipe = make_led("low resolution", (), words, in_channels=5, num_class_embeds=labels)
    pipe.augmentation = usual_augmentation()._replace(highest=highest) if labels else None
    return pipe


def make_vq(seed=0):
    """The same with a VQModel: nine codes of two channels where the encoder gives three."""
    pipe = make(seed)
    sizes = {"latent_channels": 3, "vq_embed_dim": 2, "num_vq_embeddings": 9}
    kl = ("use_quant_conv", "use_post_quant_conv")
    config = {field: value for field, value in pipe.vae.config.items() if field not in kl}
    pipe.vae = VQModel.from_config(config | sizes)
    rng = np.random.default_rng(seed)
    for parameter in pipe.vae.parameters():
        deviation = 0.05 if parameter.data.ndim == 1 else parameter.data[..., 0].size ** -0.5
        drawn = parameter.data + rng.standard_normal(parameter.data.shape, np.float32) * deviation
        parameter.data = drawn.astype(np.float32)
    pipe.vae.quantize.embedding.weight.data = rng.standard_normal((9, 2), np.float32)
    return pipe
