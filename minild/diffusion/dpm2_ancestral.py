"""DPM-Solver-2 (arXiv 2206.00927) in Karras' σ with ancestral noise: as euler_ancestral, of order two."""

import math

from minild.backend import device_of, to_device
from minild.diffusion.dpm2 import epsilon_half_way, half_way_steps
from minild.diffusion.sigmas import level_steps, require_falling
from minild.diffusion.start import NOISE
from minild.random import standard_normal


def dpm2_ancestral(predict, latents, schedule, steps, generators, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps, (N, h, w, c); all but the last call the model twice.

    x_next = x + (σ_down - σ) ε + σ_up · noise, with ε half the way to σ_down in log σ, and σ_up and σ_down of
    euler_ancestral. x = z_0 + σ ε; z = x / √(σ_next² + 1) is yielded, the last x as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image;
    mix, start: see minild.diffusion.
    """
    timesteps, sigmas = half_way_steps(schedule, steps)
    require_falling(sigmas, "dpm2-a")
    x = start.levels(latents, schedule, sigmas)
    for t, sigma, after, scale in level_steps(timesteps, sigmas, start.skip):
        up = after * math.sqrt(1 - (after / sigma) ** 2)
        down = after * (after / sigma)
        x = x + (down - sigma) * epsilon_half_way(predict, schedule, x, t, sigma, down)
        if up > 0:
            x = x + up * to_device(standard_normal(generators, x.shape[1:], x.dtype), device_of(x))
        if mix:
            x = scale * mix(x / scale, 1 / scale**2)
        yield x / scale
