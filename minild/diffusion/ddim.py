"""DDIM (Song, Meng & Ermon 2020, arXiv 2010.02502)."""

import math

from minild.backend import device_of, to_device
from minild.diffusion.start import NOISE
from minild.random import standard_normal


def ddim(predict, latents, schedule, steps, generators=None, eta=0.0, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps of equation 12, (N, h, w, c), the last the sample.

    z_prev = √ᾱ_prev ẑ_0 + √(1 - ᾱ_prev - σ²) ε + σ · noise,
    σ = η √((1 - ᾱ_prev) / (1 - ᾱ_t)) √(1 - ᾱ_t / ᾱ_prev): η = 0 is deterministic, η = 1 is DDPM's variance.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image,
    needed for η > 0; mix, start: see minild.diffusion. t_prev is t - T / steps in every spacing, as in the reference.
    """
    stride = schedule.train_steps // steps
    timesteps = schedule.timesteps(steps).tolist()[start.skip :]  # plain numbers: a NumPy scalar would promote float32
    latents = start.latents(latents, schedule.alpha_bar(timesteps[0]))
    for t in timesteps:
        alpha_bar, previous = schedule.alpha_bar(t), schedule.alpha_bar(t - stride)
        clean, epsilon = schedule.predictions(predict(latents, t), latents, alpha_bar)
        sigma = eta * math.sqrt((1 - previous) / (1 - alpha_bar) * max(0.0, 1 - alpha_bar / previous))
        latents = math.sqrt(previous) * clean + math.sqrt(max(0.0, 1 - previous - sigma**2)) * epsilon
        if sigma > 0:
            noise = standard_normal(generators, latents.shape[1:], latents.dtype)
            latents += sigma * to_device(noise, device_of(latents))
        if mix:
            latents = mix(latents, previous)
        yield latents
