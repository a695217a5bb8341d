"""DDPM's ancestral sampling (Ho, Jain & Abbeel 2020, arXiv 2006.11239)."""

import math

from minild.backend import device_of, to_device
from minild.diffusion.start import NOISE
from minild.diffusion.variance import split_output, step_deviation
from minild.random import standard_normal


def ddpm(predict, latents, schedule, steps, generators, mix=None, start=NOISE, variance_type="fixed_small"):
    """Yield the latents after each of `steps` steps of algorithm 2, (N, h, w, c), the last the sample.

    Each draws from the posterior q(z_prev | z_t, ẑ_0) of equations 6 and 7, written for a stride of several timesteps:
    with α = ᾱ_t / ᾱ_prev, mean = (√ᾱ_prev (1 - α) ẑ_0 + √α (1 - ᾱ_prev) z_t) / (1 - ᾱ_t) and
    variance = (1 - ᾱ_prev) / (1 - ᾱ_t) · (1 - α). The last step adds no noise.

    variance_type: another variance than that, even one that the model tells, see minild.diffusion.variance. As in the
    reference, noise of these joins the last step, too, where that is not at t = 0.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image;
    mix, start: see minild.diffusion.
    """
    timesteps = schedule.timesteps(steps).tolist()[start.skip :]  # plain numbers: a NumPy scalar would promote float32
    latents = start.latents(latents, schedule.alpha_bar(timesteps[0]))
    for t, before in zip(timesteps, [*timesteps[1:], None]):
        alpha_bar = schedule.alpha_bar(t)
        previous = 1.0 if before is None else schedule.alpha_bar(before)
        alpha = alpha_bar / previous
        output, told = split_output(predict(latents, t), latents, variance_type)
        clean, _ = schedule.predictions(output, latents, alpha_bar)
        of_clean = math.sqrt(previous) * (1 - alpha) / (1 - alpha_bar)
        of_latents = math.sqrt(alpha) * (1 - previous) / (1 - alpha_bar)
        latents = of_clean * clean + of_latents * latents
        variance = (1 - previous) / (1 - alpha_bar) * (1 - alpha)
        deviation = step_deviation(variance_type, told, variance, 1 - alpha)
        if t > 0 and (told is not None or deviation > 0):
            noise = standard_normal(generators, latents.shape[1:], latents.dtype)
            latents += deviation * to_device(noise, device_of(latents))
        if mix:
            latents = mix(latents, previous)
        yield latents
