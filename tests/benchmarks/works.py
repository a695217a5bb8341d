"""The works that are timed: which model, which inputs, and whether it is trained or only run; and whole commands."""

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


ATTENTION = {"heads": 8, "width": 320}
FORWARD = ("predict", "decode")  # what is done with a model and no gradient


@dataclass(frozen=True)
class Work:
    """One model doing one thing; or attention alone, where there is no model.

    does      "train" (forward, backward, AdamW), "predict" (the U-Net's forward) or "decode" (the autoencoder's);
              "attend" (attention's forward) or "differentiate" (that and its backward)
    side      of the square maps it is given: latents, or pictures where an autoencoder is trained; 0 without
    tokens    of the U-Net's context, or that attend to each other
    repeats   how often it is timed unless the user says
    """

    key: str
    title: str
    model: str | None
    does: str
    config: dict
    batch: int
    side: int
    repeats: int
    tokens: int = 0


@dataclass(frozen=True)
class Command:
    """A whole command `minild`, which minild does alone.

    arguments  in which {folder} is an empty one, {device} cpu or cuda
    follows    the share of the held-out captions that a pipeline which it leaves in {folder}/pipeline must follow
    """

    key: str
    title: str
    arguments: tuple
    repeats: int
    follows: float | None = None


EVALUATED = ("--json", "{folder}/figures.json", "--device", "{device}")
PICTURE = ("txt2img", "red apple", "--model", "emoji", "--output", "{folder}/picture.png", "--device", "{device}")
TRAINED = ("--output", "{folder}/pipeline", "--device", "{device}")
WORKS = [
    Work("W1", "U-Net, train step", "UNet2DConditionModel", "train", UNET, 64, 8, 15, tokens=16),
    Work("W2/64", "U-Net, forward", "UNet2DConditionModel", "predict", UNET, 64, 8, 20, tokens=16),
    Work("W2/2", "U-Net, forward", "UNet2DConditionModel", "predict", UNET, 2, 8, 40, tokens=16),
    Work("W3", "Stable Diffusion 1.5 U-Net, forward", "UNet2DConditionModel", "predict",
         single_file.CONFIGS["unet"], 2, 64, 3, tokens=77),
    Work("W4", "Stable Diffusion VAE, decode", "AutoencoderKL", "decode", single_file.CONFIGS["vae"], 1, 64, 3),
    Work("W5", "KL autoencoder, train step", "AutoencoderKL", "train", AUTOENCODER, 32, 32, 15),
    Work("W6/forward", "attention of 4,096 tokens, 8 heads of 40, forward", None, "attend", ATTENTION, 1, 0, 15,
         tokens=4096),
    Work("W6/both", "attention of 4,096 tokens, 8 heads of 40, forward and backward", None, "differentiate", ATTENTION,
         1, 0, 10, tokens=4096),
    Command("W7", "minild evaluate shapes", ("evaluate", "shapes", *EVALUATED), 1),
    Command("W8", "minild txt2img of emoji, to the first picture", PICTURE, 5),
]
# 94.3 % of 512 captions were followed after such a training, with an interval from 92.0 (data/pretrained/README.md).
TRAINING = Command("W9", "minild train shapes", ("train", "shapes", *TRAINED), 1, 0.92)
ONNX = "model.onnx"  # the file of a model for those libraries that read nothing else
KL_WEIGHT = 1e-4  # of the loss that the autoencoder is trained with
LEARNING_RATE = 1e-4
SCALES = {"W1": ("batch", (1, 2, 4, 8, 16, 32, 64, 128)), "W3": ("side", (32, 48, 64, 80, 96))}


def chosen(names):
    """The works of names with commas between, "W2" for all of W2's. UserError for another.

    None is all of them but the training, which takes minutes; "all" is that, too.
    """
    if names is None:
        return WORKS
    every, works = [*WORKS, TRAINING], []
    for name in names.split(","):
        found = [work for work in every if name in ("all", work.key, work.key.partition("/")[0])]
        if not found:
            raise UserError(f"unknown work {name!r}: use all or {', '.join(work.key for work in every)}")
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

    if work.model is None:
        names = "qkv" if work.does == "attend" else ("q", "k", "v", "dy")
        return {name: normal(N, work.tokens, work.config["width"]) for name in names}
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


def channels_first(array):
    """Images (N, H, W, C) as (N, C, H, W), as the other libraries have them; other arrays as they are."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array


class Writer:
    """Writes the folder of a work's model that all libraries open."""

    def write(self, work, folder):
        model = getattr(models, work.model).from_config(work.config)
        rng = np.random.default_rng(5)
        for parameter in model.parameters():
            if not parameter.data.any():  # what begins at zero keeps gradients from all before it
                deviation = 0.05 if parameter.data.ndim == 1 else parameter.data[..., 0].size ** -0.5
                parameter.data += deviation * rng.standard_normal(parameter.data.shape, dtype=np.float32)
        model.save_pretrained(Path(folder))
