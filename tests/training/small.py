"""Models of a few thousand weights and the objectives that train them, with H ≠ W."""

import numpy as np
from models.tiny import AUTOENCODER, TEXT, UNET, VQ

from minild.diffusion import NoiseSchedule
from minild.models import LPIPS, AutoencoderKL, CLIPTextModel, PatchDiscriminator, UNet2DConditionModel, VQModel
from minild.training.adversarial import AdversarialObjective, AdversarialPair
from minild.training.autoencoder import AutoencoderObjective
from minild.training.codebook import CodebookTracker, VQObjective
from minild.training.latent_diffusion import Denoiser, DiffusionObjective

LATENT = (4, 6, 3)


def drawn(module, dtype="float32"):
    """The module with every parameter drawn anew, so that no zero of an initialisation hides a fault."""
    rng = np.random.default_rng(11)
    for parameter in module.parameters():
        shape = parameter.data.shape
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 25
        parameter.data = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(dtype)
    return module


def autoencoder(dtype="float32"):
    return drawn(AutoencoderKL.from_config(AUTOENCODER), dtype)


def denoiser(dtype="float32"):
    text = TEXT | {"hidden_size": 6, "num_hidden_layers": 1}
    return drawn(Denoiser(UNet2DConditionModel.from_config(UNET), CLIPTextModel.from_config(text)), dtype)


def autoencoder_objective(kl_weight=0.3, count=7):
    """Pictures 8 x 6, latents 4 x 3 x 2."""
    pictures = np.random.default_rng(5).integers(0, 256, (count, 8, 6, 3), np.uint8)
    return AutoencoderObjective(pictures, (4, 3, 2), kl_weight)


def vq_model(dtype="float32"):
    """Twelve codes of four channels, near the twelve latents of a picture of noise."""
    model, rng = drawn(VQModel.from_config(VQ)), np.random.default_rng(12)
    z = model.encode(rng.uniform(-1, 1, (1, 8, 6, 3)).astype("f")).reshape(12, 4)
    model.quantize.embedding.weight.data = z + 0.1 * rng.standard_normal(z.shape, np.float32)
    return model.astype(dtype)


def vq_objective(moves=False, count=7, **settings):
    """Pictures 8 x 6, latents 4 x 3 x 4; the quantiser weighs as much as the picture, β not as by default."""
    pictures = np.random.default_rng(5).integers(0, 256, (count, 8, 6, 3), np.uint8)
    return VQObjective(pictures, CodebookTracker(12, 4, moves), **{"beta": 0.6, "codebook_weight": 0.8} | settings)


def pair(dtype="float32"):
    """The autoencoder and a discriminator for its pictures of 8 x 6."""
    discriminator = PatchDiscriminator.from_config({"width": 4, "layers": 1})
    return AdversarialPair(autoencoder(dtype), drawn(discriminator, dtype))


def adversarial_objective(count=7, **settings):
    """As autoencoder_objective, with a perceptual distance and a discriminator from the start."""
    perceptual = drawn(LPIPS.from_config({"widths": [4, 5], "depths": [1, 1]}))
    pictures = np.random.default_rng(5).integers(0, 256, (count, 8, 6, 3), np.uint8)
    rebuilding = AutoencoderObjective(pictures, (4, 3, 2), 0.3, perceptual, 0.6)
    return AdversarialObjective(rebuilding, **{"start": 0.0} | settings)


def diffusion_objective(count=7, schedule=None, **settings):
    """Latents 4 x 6 x 3, two captions of five tokens for each."""
    rng = np.random.default_rng(6)
    means, deviations = rng.standard_normal((2, count, *LATENT), np.float32)
    token_ids = rng.integers(0, 11, (count, 2, 5))
    latents = means, abs(deviations) / 5, 0.8
    return DiffusionObjective(*latents, token_ids, np.arange(5), schedule or NoiseSchedule(), **settings)


VQ_CASES = {
    "codes by gradient": (vq_model, vq_objective),
    "codes that are moved": (vq_model, lambda: vq_objective(moves=True)),
}
CASES = {"autoencoder": (autoencoder, autoencoder_objective), "diffusion": (denoiser, diffusion_objective)}
