"""DDIM run backwards, from a picture's latents to the noise that DDIM makes it from (arXiv 2010.02502, section 4.3)."""

import math

from minild.diffusion.schedule import require_supported
from minild.diffusion.start import NOISE
from minild.errors import UserError


def ddim_inverse(predict, latents, schedule, steps, generators=None, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps of equation 12 the other way, (N, h, w, c), the last all noise.

    z_t = √ᾱ_t ẑ_0 + √(1 - ᾱ_t) ε, with ẑ_0 and ε told from z_prev as if it were already at t: the two differ little
    where the steps are small.

    predict(latents, t) -> the model's output, like latents; latents: here of a picture; generators: not used;
    mix, start: refused.
    """
    if start.clean is not None:
        raise UserError("sampler ddim-inverse begins with a picture and ends in noise: use another")
    if mix:
        raise UserError("sampler ddim-inverse ends in noise: there is nothing to mix in, use another")
    require_supported(schedule.config, "sampler ddim-inverse", "ddim-inverse")
    stride = schedule.train_steps // steps
    for t in reversed(schedule.timesteps(steps).tolist()):  # plain numbers: a NumPy scalar would promote float32
        alpha_bar, previous = schedule.alpha_bar(t), schedule.alpha_bar(t - stride)
        clean, epsilon = schedule.predictions(predict(latents, t), latents, previous)
        latents = math.sqrt(alpha_bar) * clean + math.sqrt(1 - alpha_bar) * epsilon
        yield latents
