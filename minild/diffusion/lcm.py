"""Multistep sampling of a latent consistency model (Luo et al. 2023, arXiv 2310.04378)."""

import math

import numpy as np

from minild.backend import device_of, to_device
from minild.diffusion.start import NOISE
from minild.random import standard_normal

SIGMA_DATA = 0.5


def lcm(
    predict,
    latents,
    schedule,
    steps,
    generators,
    original_inference_steps=50,
    timestep_scaling=10.0,
    mix=None,
    start=NOISE,
):
    """Yield the latents after each of `steps` steps of algorithm 3, (N, h, w, c), the last the sample.

    f(z, t) = c_skip z + c_out ẑ_0, with c_skip = d² / (s² + d²), c_out = s / √(s² + d²), s = timestep_scaling · t and
    d = 1/2, is noised to the next timestep: z_next = √ᾱ_next f + √(1 - ᾱ_next) · noise. The last step adds none.

    The timesteps are some of the `original_inference_steps` that the model was distilled on.
    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image;
    mix, start: see minild.diffusion.
    """
    timesteps = lcm_timesteps(schedule, steps, original_inference_steps)[start.skip :]
    latents = start.latents(latents, schedule.alpha_bar(timesteps[0]))
    for t, after in zip(timesteps, [*timesteps[1:], None]):
        clean, _ = schedule.predictions(predict(latents, t), latents, schedule.alpha_bar(t))
        scaled = timestep_scaling * t
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        out = scaled / math.hypot(scaled, SIGMA_DATA)
        latents = out * clean + skip * latents
        alpha_bar = 1.0 if after is None else schedule.alpha_bar(after)
        if after is not None:
            noise = to_device(standard_normal(generators, latents.shape[1:], latents.dtype), device_of(latents))
            latents = math.sqrt(alpha_bar) * latents + math.sqrt(1 - alpha_bar) * noise
        if mix:
            latents = mix(latents, alpha_bar)
        yield latents


def lcm_timesteps(schedule, steps, original_inference_steps):
    """`steps` of the distillation's timesteps, about equally far apart, from T - 1 down."""
    schedule.require_steps(steps, original_inference_steps)
    stride = schedule.train_steps // original_inference_steps
    original = np.arange(original_inference_steps, 0, -1) * stride - 1
    return original[np.arange(steps) * original_inference_steps // steps].tolist()
