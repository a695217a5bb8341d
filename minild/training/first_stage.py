"""What a preset's first stage is made of: the kind of autoencoder, what is trained with it, and the objective.

Or where it is taken from. One autoencoder serves any number of diffusion models (paper, section 1, point iv).
"""

import dataclasses
from pathlib import Path

import numpy as np

from minild import pretrained
from minild.data.location import data_path
from minild.errors import UserError
from minild.evaluation import rebuild
from minild.models import LPIPS, AutoencoderKL, PatchDiscriminator, VQModel
from minild.pipelines.folder import find_folder, read_record
from minild.pipelines.sheet import draw_sheet
from minild.reading import usable
from minild.training.adversarial import AdversarialObjective, AdversarialPair
from minild.training.autoencoder import AutoencoderObjective
from minild.training.codebook import CodebookTracker, VQObjective

AUTOENCODERS = {"kl": AutoencoderKL, "vq": VQModel}  # by their regularisation


def open_autoencoder(folder, device="cpu"):
    """The autoencoder in a folder vae/. UserError where there is none to read."""
    with usable(folder):
        return AUTOENCODERS[_regularisation(_config(folder))].from_pretrained(folder, device=device)


def fitted(preset, output):
    """The preset; where its first_stage is another pipeline, changed in what that autoencoder decides: the shape of the
    latents, and what of a posterior there is to learn.

    Once the training in `output` has an autoencoder, the other pipeline is not asked any more.
    """
    if not preset.first_stage:
        return preset
    own = Path(output) / "vae"
    if own.is_dir():
        config, posterior = _config(own), preset.posterior
    else:
        other = find_folder(preset.first_stage)
        config, posterior = _config(other / "vae"), read_record(other).get("posterior", "sample")
    return dataclasses.replace(
        preset,
        posterior=posterior,
        regularisation=_regularisation(config),
        channels=tuple(config["block_out_channels"]),
        latent_channels=config["latent_channels"],
        code_width=config.get("vq_embed_dim"),
    )


def _config(folder):
    return pretrained.read_json(folder / "config.json")


def _regularisation(config):
    return "vq" if config.get("_class_name") == VQModel.__name__ else "kl"


def judges(preset, seed=0, device="cpu"):
    """What a preset's autoencoder is trained by: the network of the perceptual distance, and a discriminator drawn from
    `seed`; None for one that it has not.
    """
    perceptual = discriminator = None
    if preset.perceptual_weight:
        perceptual = LPIPS.from_pretrained(data_path("pretrained", "perceptual"), device=device)
    if preset.adversarial_weight:
        discriminator = PatchDiscriminator.from_config({"width": preset.discriminator_width}, seed).to(device)
    return perceptual, discriminator


def require_large_enough(size, preset):
    """UserError for pictures of which one of the judges sees nothing."""
    for what, judge in zip(("perceptual distance", "discriminator"), judges(preset)):
        if judge and size < judge.smallest:
            raise UserError(f"size {size} is too small for the {what}: use {judge.smallest} pixels or more")


def build_first_stage(autoencoder, pictures, latent_shape, preset, seed):
    """What stage one trains, the autoencoder alone or against a discriminator drawn from `seed`, and the objective."""
    perceptual, discriminator = judges(preset, seed + 3, autoencoder.device)
    settings = {"perceptual": perceptual, "perceptual_weight": preset.perceptual_weight} if perceptual else {}
    if preset.regularisation == "vq":
        tracker = CodebookTracker(preset.codebook_size, preset.latent_width, preset.codebook_moves)
        objective = VQObjective(pictures, tracker, preset.commitment, preset.codebook_weight, **settings)
    else:
        objective = AutoencoderObjective(pictures, latent_shape, preset.kl_weight, **settings)
    if not discriminator:
        return autoencoder, objective
    pair = AdversarialPair(autoencoder, discriminator)
    return pair, AdversarialObjective(objective, preset.adversarial_weight, preset.adversarial_start)


def draw_rebuilt(path, autoencoder, pictures, captions):
    """A sheet of pictures (N, H, W, 3) uint8, and of what an autoencoder makes of each, under it."""
    rebuilt = rebuild(autoencoder, pictures)
    labels = [*captions, *["rebuilt"] * len(pictures)]
    draw_sheet(path, np.concatenate([pictures / 255, rebuilt]), labels, columns=len(pictures))
