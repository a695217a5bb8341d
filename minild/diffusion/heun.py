"""Heun's second-order method on the probability flow (Karras et al. 2022, arXiv 2206.00364, algorithm 1)."""

from minild.diffusion.sigmas import denoise, level_steps, sigma_steps
from minild.diffusion.start import NOISE


def heun(predict, latents, schedule, steps, generators=None, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps, (N, h, w, c); all but the last call the model twice.

    Euler's step to σ_next, ε there, and the step once more with the mean of both ε; a step to σ_next = 0 stays
    Euler's. x = z_0 + σ ε; z = x / √(σ_next² + 1) is yielded, the last x as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion.
    """
    timesteps, sigmas = sigma_steps(schedule, steps)
    x = start.levels(latents, schedule, sigmas)
    for i, (t, sigma, after, scale) in enumerate(level_steps(timesteps, sigmas, start.skip), start.skip):
        _, epsilon = denoise(predict, schedule, x, t, sigma)
        tried = x + (after - sigma) * epsilon
        if i + 1 < steps:
            _, there = denoise(predict, schedule, tried, timesteps[i + 1], after)
            x = x + (after - sigma) / 2 * (epsilon + there)
        else:
            x = tried
        if mix:
            x = scale * mix(x / scale, 1 / scale**2)
        yield x / scale
