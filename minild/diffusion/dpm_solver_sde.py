"""SDE-DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095, section 5)."""

import math

from minild.backend import device_of, to_device
from minild.diffusion.dpm_solver import extrapolated, whole_of
from minild.diffusion.sigmas import require_falling, signal_and_noise, solver_steps
from minild.random import standard_normal


def dpmpp_2m_sde(predict, latents, schedule, steps, generators, lower_order_final=True, mix=None):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    z_next = (σ_next / σ) e^-h z + α_next (1 - e^-2h) D + σ_next √(1 - e^-2h) · noise: as dpmpp_2m, for the diffusion
    run backwards as the stochastic process that it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image;
    mix: what a step mixes in, see minild.diffusion.
    """
    timesteps, levels = solver_steps(schedule, steps, whole_of(schedule))
    require_falling(levels, "dpmpp-2m-sde")
    z, before = latents, None
    for i, t in enumerate(timesteps):
        (signal, noise), (signal_after, noise_after) = map(signal_and_noise, levels[i : i + 2])
        decay = levels[i + 1] / levels[i]  # e^-h
        clean, _ = schedule.predictions(predict(z, t), z, signal**2)
        data = extrapolated(clean, before, levels, i, lower_order_final)
        z = (noise_after / noise * decay) * z + signal_after * (1 - decay**2) * data
        if noise_after > 0:
            fresh = standard_normal(generators, z.shape[1:], z.dtype)
            z += noise_after * math.sqrt(1 - decay**2) * to_device(fresh, device_of(z))
        before = clean
        if mix:
            z = mix(z, signal_after**2)
        yield z
