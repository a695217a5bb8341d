"""What a preset's first stage is made of: the kind of autoencoder, what is trained with it, and the objective."""

from minild.data.location import data_path
from minild.models import LPIPS, AutoencoderKL, PatchDiscriminator, VQModel
from minild.training.adversarial import AdversarialObjective, AdversarialPair
from minild.training.autoencoder import AutoencoderObjective
from minild.training.codebook import CodebookTracker, VQObjective

AUTOENCODERS = {"kl": AutoencoderKL, "vq": VQModel}  # by their regularisation


def first_stage(autoencoder, pictures, latent_shape, preset, seed):
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
