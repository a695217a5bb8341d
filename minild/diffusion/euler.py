"""Euler's method on the probability flow (Karras et al. 2022, arXiv 2206.00364)."""

from minild.diffusion.sigmas import denoise, initial_scale, sigma_steps


def euler(predict, latents, schedule, steps, generators=None):
    """Yield x after each of `steps` steps of algorithm 1 without its second-order correction, (N, h, w, c).

    x_next = x + (σ_next - σ) dx/dσ, dx/dσ = ε. In between, x = z_0 + σ ε; the last is the sample.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used.
    """
    timesteps, sigmas = sigma_steps(schedule, steps)
    x = latents * initial_scale(schedule, sigmas)
    for t, sigma, after in zip(timesteps, sigmas, sigmas[1:]):
        _, epsilon = denoise(predict, schedule, x, t, sigma)
        x = x + (after - sigma) * epsilon
        yield x
