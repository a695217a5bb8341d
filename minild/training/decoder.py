"""A better decoder for the latents that there are: the encoder stays as it is, and with it every diffusion model of its
latents.

How sharp a picture is drawn depends much on the decoder, and diffusion never sees it. So it may go on learning when all
else is done, and with other losses: the public autoencoders of Stable Diffusion were improved so.
"""

import dataclasses
import math

import numpy as np

from minild.backend import device_of, to_device
from minild.data.pictures import to_signed
from minild.errors import UserError
from minild.models import VQModel
from minild.models.autoencoder import Autoencoder
from minild.models.autoencoder_kl import reparameterize
from minild.nn.module import Module
from minild.training.adversarial import AdversarialObjective, AdversarialPair
from minild.training.autoencoder import AutoencoderObjective, RebuildingCache
from minild.training.budget import Budget
from minild.training.first_stage import draw_rebuilt, judges, require_large_enough
from minild.training.learner import Learner
from minild.training.memory import DECODING, require_memory, tuning_estimate
from minild.training.presets import SCENES
from minild.training.tuning import SMALL, learn, open_lesson, require_new_folder

MINUTES = 20
PRESET = dataclasses.replace(SCENES, adversarial_start=0.5)  # what it is trained with; the picture is there already
CAPTION = "a picture"  # of those that have none
SHOWN = 8  # pictures on a sheet


class DecodingHalf(Module):
    """What an autoencoder makes of a latent: post_quant_conv and decoder, the same modules."""

    def __init__(self, autoencoder):
        self.post_quant_conv, self.decoder = autoencoder.post_quant_conv, autoencoder.decoder
        self.config = autoencoder.config

    @property
    def device(self):
        """The name of the device that holds its weights."""
        return device_of(self.decoder.parameters()[0].data)

    def forward(self, z):
        """z (N, h, w, c), of a VQModel quantised -> x̂ (N, H, W, 3), cache."""
        h, post_quant = self.post_quant_conv.forward(z)
        y, decoder = self.decoder.forward(h)
        return y, (post_quant, decoder)

    def backward(self, dy, cache):
        """dy like x̂ -> dz like z."""
        post_quant, decoder = cache
        return self.post_quant_conv.backward(self.decoder.backward(dy, decoder), post_quant)

    last_weight_gradient = Autoencoder.last_weight_gradient  # of the cache, it takes the decoder's alone


class DecodingObjective(AutoencoderObjective):
    """The loss of a RebuildingObjective, of latents that `autoencoder`, which does not learn, makes of the pictures.

    latent_noise: how far off they are, for the latents that a U-Net draws are a little off, too: by normal noise whose
    deviation is latent_noise · |n| of the latents' own, with a normal n for each picture (Zheng et al. 2025, arXiv
    2510.11690, noise-augmented decoding). Their own is 1 / scaling_factor.
    """

    def __init__(self, autoencoder, pictures, latent_shape, latent_noise=0.0, **settings):
        super().__init__(pictures, latent_shape, kl_weight=0.0, **settings)
        self.autoencoder, self.latent_noise = autoencoder, latent_noise

    def batch(self, rng, size, progress):
        """Random pictures, the noise of their latents, and what these are off by, on the host."""
        batch = super().batch(rng, size, progress)
        if not self.latent_noise:
            return batch
        deviations = abs(self.latent_noise / self.autoencoder.config["scaling_factor"] * rng.standard_normal(size))
        off = rng.standard_normal((size, *self.latent_shape), dtype=np.float32)
        return *batch, off * deviations.astype(np.float32).reshape(size, 1, 1, 1)

    def forward(self, half, batch):
        """-> {name: loss} on the device, cache."""
        x, *noise = (to_device(part, half.device) for part in (to_signed(batch[0]), *batch[1:]))
        y, cache = half.forward(self._latents(x, *noise))
        losses, comparison = self.compare(y, x)
        return losses, RebuildingCache(half, cache, y, x, comparison)

    def _latents(self, x, noise, off=0.0):
        encoded = self.autoencoder.encode(x)
        if isinstance(self.autoencoder, VQModel):
            return self.autoencoder.quantize(encoded + off)[0]
        return reparameterize(encoded, noise)[0] + off

    def backward_from(self, dy, dloss, cache):
        """The rest of backward, from dy = dx̂ on."""
        cache.model.backward(dy, cache.autoencoder)


def train_decoder(model, dataset, output, minutes=None, steps=None, seed=0, device="cpu", size=None, batch_size=None,
                  learning_rate=None, latent_noise=0.0, preset=PRESET):  # fmt: skip
    """Train the decoder of the pipeline `model` on with the preset's losses, and write the whole pipeline to the folder
    `output` -> how many steps it took.

    dataset        a data set's name, or a folder of pictures; captions are not used
    minutes, steps  how long; with neither, MINUTES
    size           of the pictures, in pixels; None: that which the pipeline draws
    batch_size     None: the preset's, and 1 where the pictures are larger than 128 pixels
    learning_rate  at its peak; None: the preset's
    latent_noise   how far off the latents are, in their deviations; see DecodingObjective
    preset         a presets.Preset: of its first stage, the optimiser and the weights of the losses

    UserError for whatever is missing or does not fit.
    """
    require_new_folder(output)
    if not 0 <= latent_noise < math.inf:
        raise UserError(f"latent noise: expected a number from 0, got {latent_noise!r}")
    lesson = open_lesson(model, dataset, output, CAPTION, size, device, led_by_words=False)
    pipe, stage, size = lesson.pipe, preset.autoencoder, lesson.size
    require_large_enough(size, preset)
    stage = dataclasses.replace(
        stage,
        batch_size=(stage.batch_size if size <= SMALL else 1) if batch_size is None else batch_size,
        learning_rate=stage.learning_rate if learning_rate is None else learning_rate,
    )
    half, vae, side = DecodingHalf(pipe.vae), pipe.vae, size // pipe.vae.downsampling
    if device == "cpu":
        watched = bool(preset.perceptual_weight or preset.adversarial_weight)
        require_memory(tuning_estimate(half, half, size, stage.batch_size, watched=watched), DECODING)
    perceptual, discriminator = judges(preset, seed, device)
    settings = {"perceptual": perceptual, "perceptual_weight": preset.perceptual_weight} if perceptual else {}
    trained, shape = half, (side, side, vae.latent_width(vae.config))
    objective = DecodingObjective(vae, lesson.pictures, shape, latent_noise, **settings)
    if discriminator:
        trained = AdversarialPair(half, discriminator)
        objective = AdversarialObjective(objective, preset.adversarial_weight, preset.adversarial_start)
    budget = Budget.of(minutes, steps, MINUTES)
    pipe.record = pipe.record | {"learnt": [*pipe.record.get("learnt", []), f"to decode {dataset}"]}

    def draw(path):
        draw_rebuilt(path, vae, lesson.pictures[:SHOWN], [texts[0] for texts in lesson.captions[:SHOWN]])

    def write():
        pipe.save_pretrained(output)

    return learn("decoder", Learner(trained, objective, stage, budget, (seed, 0)), output, draw, write)
