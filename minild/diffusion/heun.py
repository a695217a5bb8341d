"""Heun's second-order method on the probability flow (Karras et al. 2022, arXiv 2206.00364, algorithm 1)."""

from minild.diffusion.sigmas import denoise, initial_scale, scales_of, sigma_steps


def heun(predict, latents, schedule, steps, generators=None, mix=None):
    """Yield the latents after each of `steps` steps, (N, h, w, c); all but the last call the model twice.

    Euler's step to σ_next, ε there, and the step once more with the mean of both ε; a step to σ_next = 0 stays
    Euler's. x = z_0 + σ ε; z = x / √(σ_next² + 1) is yielded, the last x as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix: what a step mixes in, see minild.diffusion.
    """
    timesteps, sigmas = sigma_steps(schedule, steps)
    x = latents * initial_scale(schedule, sigmas)
    for i, (t, scale) in enumerate(zip(timesteps, scales_of(sigmas))):
        sigma, after = sigmas[i : i + 2]
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
