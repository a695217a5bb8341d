"""Stage two: the U-Net, and the text encoder with it, learn to tell the noise in a latent, given what it shows."""

import numpy as np

from minild.backend import to_device
from minild.diffusion.loss import denoising_loss, denoising_loss_backward
from minild.diffusion.variance import hybrid_loss, hybrid_loss_backward
from minild.errors import UserError
from minild.models.condition import Condition, Conditioned
from minild.training.conditioning import EARLY, Choices, Conditioning


def uniform(rng, size):
    """Where times are drawn from: (size,) in [0, 1)."""
    return rng.random(size)


def logit_normal(rng, size):
    """1 / (1 + exp(-n)) of standard normal n, (size,) in (0, 1)."""
    return 1 / (1 + np.exp(-rng.standard_normal(size)))


TIMES = {"uniform": uniform, "logit_normal": logit_normal}


class Denoiser(Conditioned):
    """ε_θ(z_t, t, τ_θ(y)): what stage two trains as one, the U-Net and, where words lead it, the text encoder.

    With a text encoder the context of the condition is token ids (N, L). In conditioning.Frozen it stays as it is.
    """

    def __init__(self, unet, text_encoder=None, controlnet=None):
        super().__init__(unet, controlnet)
        self.text_encoder = text_encoder

    def forward(self, x, t, condition):
        """x (N, h, w, c), t (N,), a Condition -> what the U-Net predicts."""
        text = None
        if self.text_encoder:
            context, text = self.text_encoder.forward(condition.context)
            condition = condition._replace(context=context)
        y, cache = super().forward(x, t, condition)
        return y, (cache, text)

    def backward(self, dy, cache):
        """dy like y. Adds into the gradients of both models; -> dx, dt, None."""
        cache, text = cache
        dx, dt, dcontext = super().backward(dy, cache)
        if self.text_encoder:
            self.text_encoder.backward(dcontext, text)
        return dx, dt, None


class DiffusionObjective:
    """The loss of ε (paper, equation 3), or of what else the schedule's prediction_type says, on stage one's latents.

    means, deviations: (N, h, w, c), the posteriors of the pictures, drawn from anew at every visit and multiplied by
    scaling_factor. token_ids: (N, K, L), the K true captions of each picture; unconditional_ids (L,), those of "". For
    what else may lead the model, both are None and `condition` is a conditioning.Conditioning.

    Three choices beyond the paper, the first two for the EARLY part of a training alone:
    first_caption: how often the first of several true captions is shown, all alike later. "A above B" and "B below A"
        say the same, and in equal parts neither the order of the words nor the relation word alone says anything of
        who is where (their exclusive-or does), so there is no slope to start down. A preference gives one.
    noisy_end: t = T · u^(1 / (1 + noisy_end)) for uniform u: 0 is uniform, as later, 1 is T √u. Where things stand
        is decided at the noisy end, where the caption is all there is to go by.
    caption_dropout: how often "" stands for the caption, for classifier-free guidance.

    Three are known from elsewhere, and off:
    min_snr: γ, usually 5: no noise level's error counts more than γ times (diffusion.loss.min_snr_weights).
    offset_noise: how much noise that is one number for a whole channel joins the rest, usually 0.1, so that a model
        learns to change a picture's mean (Guttenberg 2023).
    times: "uniform", or "logit_normal": u = 1 / (1 + exp(-n)) for a standard normal n, more often in the middle and
        never at the ends, as Stable Diffusion 3 trains its flow (arXiv 2403.03206, equation 19 with m = 0, s = 1).

    Of a schedule that is a diffusion.FlowSchedule, it is the loss of the flow's v = ε - z (diffusion.flow). With the
    schedule's variance_type = "learned_range" the U-Net tells its variance, too: diffusion.variance.hybrid_loss.
    """

    def __init__(self, means, deviations, scaling_factor, token_ids, unconditional_ids, schedule,
                 first_caption=0.85, noisy_end=1.0, caption_dropout=0.1, min_snr=None, offset_noise=0.0,
                 condition=None, times="uniform"):
        self.means, self.deviations = means * scaling_factor, deviations * scaling_factor
        self.schedule, self.noisy_end, self.times = schedule, noisy_end, TIMES[times]
        self.min_snr, self.offset_noise = min_snr, offset_noise
        captions = Choices("context", token_ids, unconditional_ids, first_caption)
        self.condition = condition or Conditioning([captions], caption_dropout)
        kind = schedule.config.get("variance_type")
        if kind not in (None, "fixed_small", "learned_range"):
            raise UserError(f"variance_type = {kind!r} is not trained: use 'learned_range', or leave it out")
        self.learns_variance = kind == "learned_range"

    def rows(self, rng, size):
        """Which pictures make the next batch: their numbers (size,)."""
        return rng.integers(len(self.means), size=size)

    def batch(self, rng, size, progress):
        """Latents, noise, timesteps, noise levels and what the condition has for each, on the host."""
        rows = self.rows(rng, size)
        noise = rng.standard_normal((2, size, *self.means.shape[1:]), dtype=np.float32)
        z = self.means[rows] + self.deviations[rows] * noise[0]
        if self.offset_noise:
            N, *_, c = z.shape
            noise[1] += self.offset_noise * rng.standard_normal((N, 1, 1, c), dtype=np.float32)
        noisy_end = self.noisy_end if progress < EARLY else 0.0
        t, *levels = self.schedule.training_levels(self.times(rng, size) ** (1 / (1 + noisy_end)))
        posterior = self.schedule.posterior(t.astype(np.int64)) if self.learns_variance else []
        return z, noise[1], t, *levels, *posterior, *self.condition.batch(rng, rows, progress)

    def forward(self, denoiser, batch):
        """-> {"loss": loss} on the device, cache; "vlb", in nats, beside it where the variance is learnt."""
        z, noise, t, *rest = (to_device(x, denoiser.unet.device) for x in batch)
        levels, rest = tuple(rest[:2]), rest[2:]
        prediction = self.schedule.config["prediction_type"]
        if not self.learns_variance:
            condition = self._condition(rest)
            loss, cache = denoising_loss(denoiser, z, noise, t, levels, condition, prediction, self.min_snr)
            return {"loss": loss}, cache
        posterior, condition = rest[:4], self._condition(rest[4:])
        arguments = z, noise, t, levels, posterior, condition, prediction, self.min_snr, self.schedule.train_steps
        (loss, vlb), cache = hybrid_loss(denoiser, *arguments)
        return {"loss": loss, "vlb": vlb}, cache

    def _condition(self, given):
        return Condition(**dict(zip(self.condition.fields, given)))

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the gradients of all that is trained."""
        (hybrid_loss_backward if self.learns_variance else denoising_loss_backward)(dloss, cache)
