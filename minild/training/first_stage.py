"""What a preset's first stage is made of: the kind of autoencoder, what is trained with it, and the objective.

Or where it is taken from. One autoencoder serves any number of diffusion models (paper, section 1, point iv).
"""

import dataclasses
from pathlib import Path

from minild import pretrained
from minild.data.location import data_path
from minild.models import LPIPS, AutoencoderKL, PatchDiscriminator, VQModel
from minild.pipelines.folder import usable
from minild.training.adversarial import AdversarialObjective, AdversarialPair
from minild.training.autoencoder import AutoencoderObjective
from minild.training.codebook import CodebookTracker, VQObjective

AUTOENCODERS = {"kl": AutoencoderKL, "vq": VQModel}  # by their regularisation


def open_autoencoder(folder, device="cpu"):
    """The autoencoder in a folder vae/. UserError where there is none to read."""
    with usable(folder):
        name = pretrained.read_json(Path(folder) / "config.json").get("_class_name")
        kind = VQModel if name == VQModel.__name__ else AutoencoderKL
        return kind.from_pretrained(folder, device=device)


def with_latents_of(preset, autoencoder):
    """The preset, changed in what an autoencoder that is there decides."""
    config = autoencoder.config
    return dataclasses.replace(
        preset,
        regularisation=next(name for name, kind in AUTOENCODERS.items() if isinstance(autoencoder, kind)),
        channels=tuple(config["block_out_channels"]),
        latent_channels=config["latent_channels"],
        code_width=config.get("vq_embed_dim"),
    )


def build_first_stage(autoencoder, pictures, latent_shape, preset, seed):
    """What stage one trains, the autoencoder alone or against a discriminator drawn from `seed`, and the objective."""
    settings, device = {}, autoencoder.device
    if preset.perceptual_weight:
        perceptual = LPIPS.from_pretrained(data_path("pretrained", "perceptual"), device=device)
        settings = {"perceptual": perceptual, "perceptual_weight": preset.perceptual_weight}
    if preset.regularisation == "vq":
        tracker = CodebookTracker(preset.codebook_size, preset.latent_width, preset.codebook_moves)
        objective = VQObjective(pictures, tracker, preset.commitment, preset.codebook_weight, **settings)
    else:
        objective = AutoencoderObjective(pictures, latent_shape, preset.kl_weight, **settings)
    if not preset.adversarial_weight:
        return autoencoder, objective
    discriminator = PatchDiscriminator.from_config({"width": preset.discriminator_width}, seed + 3)
    pair = AdversarialPair(autoencoder, discriminator.to(device))
    return pair, AdversarialObjective(objective, preset.adversarial_weight, preset.adversarial_start)
