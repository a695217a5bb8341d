"""DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927, algorithm 1) in Karras' σ (arXiv 2206.00364)."""

import math

import numpy as np

from minild.diffusion.sigmas import denoise, level_steps, sigma_steps, timesteps_of
from minild.diffusion.start import NOISE


def dpm2(predict, latents, schedule, steps, generators=None, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps, (N, h, w, c); all but the last call the model twice.

    x_next = x + (σ_next - σ) ε, with ε half the way in log σ: see `epsilon_half_way`. x = z_0 + σ ε;
    z = x / √(σ_next² + 1) is yielded, the last x as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion.
    """
    timesteps, sigmas = half_way_steps(schedule, steps)
    x = start.levels(latents, schedule, sigmas)
    for t, sigma, after, scale in level_steps(timesteps, sigmas, start.skip):
        x = x + (after - sigma) * epsilon_half_way(predict, schedule, x, t, sigma, after)
        if mix:
            x = scale * mix(x / scale, 1 / scale**2)
        yield x / scale


def half_way_steps(schedule, steps):
    """sigma_steps with the timesteps of Karras' levels rounded, as in the reference; those half the way are not."""
    timesteps, sigmas = sigma_steps(schedule, steps)
    if schedule.config["use_karras_sigmas"]:
        timesteps = np.round(timesteps).tolist()
    return timesteps, sigmas


def epsilon_half_way(predict, schedule, x, t, sigma, after):
    """ε at √(σ σ_next), where Euler's step from x leads, like x; for σ_next = 0 ε at x itself."""
    _, epsilon = denoise(predict, schedule, x, t, sigma)
    if after == 0:
        return epsilon
    middle = math.sqrt(sigma * after)
    (t_middle,) = timesteps_of(np.array([middle]), schedule).tolist()
    _, there = denoise(predict, schedule, x + (middle - sigma) * epsilon, t_middle, middle)
    return there
