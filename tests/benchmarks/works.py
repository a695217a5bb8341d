"""The works that are timed: which model, which inputs, and whether it is trained or only run."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minild import models
from minild.errors import UserError
from minild.pipelines import single_file

UNET = {
    "sample_size": 8,
    "block_out_channels": [64, 128],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
AUTOENCODER = {
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}


@dataclass(frozen=True)
class Work:
    """One model doing one thing.

    does      "train" (forward, backward, AdamW), "predict" (the U-Net's forward) or "decode" (the autoencoder's)
    side      of the square maps it is given: latents, or pictures where an autoencoder is trained
    tokens    of the U-Net's context
    repeats   how often it is timed unless the user says
    """

    key: str
    title: str
    model: str
    does: str
    config: dict
    batch: int
    side: int
    repeats: int
    tokens: int = 0


WORKS = [
    Work("W1", "U-Net, train step", "UNet2DConditionModel", "train", UNET, 64, 8, 15, tokens=16),
    Work("W2/64", "U-Net, forward", "UNet2DConditionModel", "predict", UNET, 64, 8, 20, tokens=16),
    Work("W2/2", "U-Net, forward", "UNet2DConditionModel", "predict", UNET, 2, 8, 40, tokens=16),
    Work("W3", "Stable Diffusion 1.5 U-Net, forward", "UNet2DConditionModel", "predict",
         single_file.CONFIGS["unet"], 2, 64, 3, tokens=77),
    Work("W4", "Stable Diffusion VAE, decode", "AutoencoderKL", "decode", single_file.CONFIGS["vae"], 1, 64, 3),
    Work("W5", "KL autoencoder, train step", "AutoencoderKL", "train", AUTOENCODER, 32, 32, 15),
]
KL_WEIGHT = 1e-4  # of the loss that the autoencoder is trained with
LEARNING_RATE = 1e-4
SCALES = {"W1": ("batch", (1, 2, 4, 8, 16, 32, 64, 128)), "W3": ("side", (32, 48, 64, 80, 96))}


def chosen(names):
    """The works of names with commas between, "W2" for all of W2's; all of them for None. UserError for another."""
    if names is None:
        return WORKS
    works = []
    for name in names.split(","):
        found = [work for work in WORKS if name in (work.key, work.key.partition("/")[0])]
        if not found:
            raise UserError(f"unknown work {name!r}: use {', '.join(work.key for work in WORKS)}")
        works += found
    return works


def scaled(works):
    """Those of the works that have a row of sizes, at each of them."""
    return [
        replace(work, **{SCALES[work.key][0]: size}) for work in works if work.key in SCALES
        for size in SCALES[work.key][1]
    ]


def inputs(work):
    """{name: host array}, images (N, H, W, C): the same numbers in every process."""
    rng = np.random.default_rng(11)
    N, S = work.batch, work.side

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    if work.model == "UNet2DConditionModel":
        t = rng.integers(0, 1000, N).astype(np.float32)
        context = normal(N, work.tokens, work.config["cross_attention_dim"])
        given = {"x": normal(N, S, S, 4), "t": t, "context": context}
        return given | ({"noise": normal(N, S, S, 4)} if work.does == "train" else {})
    if work.does == "decode":
        return {"z": normal(N, S, S, 4)}
    latent = S // 2 ** (len(work.config["block_out_channels"]) - 1)
    pictures = rng.integers(0, 256, (N, S, S, 3), dtype=np.uint8)
    return {"pictures": pictures, "noise": normal(N, latent, latent, 4)}


class Writer:
    """Writes the folder of a work's model that both libraries open."""

    def write(self, work, folder):
        model = getattr(models, work.model).from_config(work.config)
        rng = np.random.default_rng(5)
        for parameter in model.parameters():
            if not parameter.data.any():  # what begins at zero keeps gradients from all before it
                deviation = 0.05 if parameter.data.ndim == 1 else parameter.data[..., 0].size ** -0.5
                parameter.data += deviation * rng.standard_normal(parameter.data.shape, dtype=np.float32)
        model.save_pretrained(Path(folder))
