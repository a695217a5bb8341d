"""Euler's method with ancestral noise: DDPM's step (arXiv 2006.11239) in Karras' σ (arXiv 2206.00364)."""

import math

from minild.backend import device_of, to_device
from minild.diffusion.sigmas import denoise, level_steps, require_falling, sigma_steps
from minild.diffusion.start import NOISE
from minild.random import standard_normal


def euler_ancestral(predict, latents, schedule, steps, generators, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps, (N, h, w, c): down to σ_down, then noise back up to σ_next.

    σ_up² = σ_next² (σ² - σ_next²) / σ² is the variance of q(x_next | x, ẑ_0), and σ_down² = σ_next² - σ_up²:
    x_next = x + (σ_down - σ) ε + σ_up · noise. x = z_0 + σ ε; z = x / √(σ_next² + 1) is yielded, the last x as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image;
    mix, start: see minild.diffusion.
    """
    timesteps, sigmas = sigma_steps(schedule, steps)
    require_falling(sigmas, "euler-a")
    x = start.levels(latents, schedule, sigmas)
    for t, sigma, after, scale in level_steps(timesteps, sigmas, start.skip):
        _, epsilon = denoise(predict, schedule, x, t, sigma)
        up = after * math.sqrt(1 - (after / sigma) ** 2)
        down = after * (after / sigma)
        x = x + (down - sigma) * epsilon
        if up > 0:
            x += up * to_device(standard_normal(generators, x.shape[1:], x.dtype), device_of(x))
        if mix:
            x = scale * mix(x / scale, 1 / scale**2)
        yield x / scale
