"""Stage two: the U-Net and the text encoder learn together to tell the noise in a latent, given its caption."""

from typing import Any, NamedTuple

import numpy as np

from minild.backend import to_device
from minild.diffusion.loss import denoising_loss, denoising_loss_backward
from minild.nn.module import Module

EARLY = 0.3  # the share of a training that goes to where things stand, before the rest sees to what they look like


class Denoiser(Module):
    """ε_θ(z_t, t, τ_θ(y)): the two models that stage two trains as one."""

    def __init__(self, unet, text_encoder):
        self.unet, self.text_encoder = unet, text_encoder


class DiffusionLossCache(NamedTuple):
    denoiser: Any
    loss: Any
    text_encoder: Any


class DiffusionObjective:
    """The loss of ε (paper, equation 3), or of what else the schedule's prediction_type says, on stage one's latents.

    means, deviations: (N, h, w, c), the posteriors of the pictures, drawn from anew at every visit and multiplied by
    scaling_factor. token_ids: (N, K, L), the K true captions of each picture; unconditional_ids (L,), those of "".

    Three choices beyond the paper, the first two for the EARLY part of a training alone:
    first_caption: how often the first of several true captions is shown, all alike later. "A above B" and "B below A"
        say the same, and in equal parts neither the order of the words nor the relation word alone says anything of
        who is where (their exclusive-or does), so there is no slope to start down. A preference gives one.
    noisy_end: t = T · u^(1 / (1 + noisy_end)) for uniform u: 0 is uniform, as later, 1 is T √u. Where things stand
        is decided at the noisy end, where the caption is all there is to go by.
    caption_dropout: how often "" stands for the caption, for classifier-free guidance.

    Two are known from elsewhere, and off:
    min_snr: γ, usually 5: no noise level's error counts more than γ times (diffusion.loss.min_snr_weights).
    offset_noise: how much noise that is one number for a whole channel joins the rest, usually 0.1, so that a model
        learns to change a picture's mean (Guttenberg 2023).
    """

    def __init__(self, means, deviations, scaling_factor, token_ids, unconditional_ids, schedule,
                 first_caption=0.85, noisy_end=1.0, caption_dropout=0.1, min_snr=None, offset_noise=0.0):
        self.means, self.deviations = means * scaling_factor, deviations * scaling_factor
        self.token_ids, self.unconditional_ids, self.schedule = token_ids, unconditional_ids, schedule
        self.first_caption, self.noisy_end, self.caption_dropout = first_caption, noisy_end, caption_dropout
        self.min_snr, self.offset_noise = min_snr, offset_noise

    def batch(self, rng, size, progress):
        """Latents, their captions' ids, noise, timesteps and noise levels, on the host."""
        rows = rng.integers(len(self.means), size=size)
        noise = rng.standard_normal((2, size, *self.means.shape[1:]), dtype=np.float32)
        z = self.means[rows] + self.deviations[rows] * noise[0]
        if self.offset_noise:
            N, *_, c = z.shape
            noise[1] += self.offset_noise * rng.standard_normal((N, 1, 1, c), dtype=np.float32)
        T = self.schedule.train_steps
        noisy_end = self.noisy_end if progress < EARLY else 0.0
        t = np.minimum((T * rng.random(size) ** (1 / (1 + noisy_end))).astype(np.int64), T - 1)
        ids = self.token_ids[rows, self._choose(rng, size, progress)]
        ids[rng.random(size) < self.caption_dropout] = self.unconditional_ids
        return z, noise[1], t.astype(np.float32), *self.schedule.noise_levels(t), ids

    def _choose(self, rng, size, progress):
        """Which of its K captions each picture is shown with."""
        K = self.token_ids.shape[1]
        chosen = rng.integers(K, size=size)
        if progress < EARLY and K > 1:
            others = rng.integers(1, K, size=size)
            chosen = np.where(rng.random(size) < self.first_caption, 0, others)
        return chosen

    def forward(self, denoiser, batch):
        """-> {"loss": loss} on the device, cache."""
        z, noise, t, signal_level, noise_level, ids = (to_device(x, denoiser.unet.device) for x in batch)
        context, text_cache = denoiser.text_encoder.forward(ids)
        prediction, levels = self.schedule.config["prediction_type"], (signal_level, noise_level)
        loss, loss_cache = denoising_loss(denoiser.unet, z, noise, t, levels, context, prediction, self.min_snr)
        return {"loss": loss}, DiffusionLossCache(denoiser, loss_cache, text_cache)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the gradients of both models."""
        dcontext = denoising_loss_backward(dloss, cache.loss)
        cache.denoiser.text_encoder.backward(dcontext, cache.text_encoder)
