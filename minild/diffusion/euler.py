"""Euler's method on the probability flow (Karras et al. 2022, arXiv 2206.00364)."""

from minild.diffusion.sigmas import denoise, level_steps, sigma_steps
from minild.diffusion.start import NOISE


def euler(predict, latents, schedule, steps, generators=None, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    Algorithm 1 without its second-order correction: x_next = x + (σ_next - σ) dx/dσ, with dx/dσ = ε. x = z_0 + σ ε;
    z = x / √(σ_next² + 1) is yielded, the last x as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion.
    """
    timesteps, sigmas = sigma_steps(schedule, steps)
    x = start.levels(latents, schedule, sigmas)
    for t, sigma, after, scale in level_steps(timesteps, sigmas, start.skip):
        _, epsilon = denoise(predict, schedule, x, t, sigma)
        x = x + (after - sigma) * epsilon
        if mix:
            x = scale * mix(x / scale, 1 / scale**2)
        yield x / scale
