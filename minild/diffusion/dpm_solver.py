"""DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095)."""

import math

import numpy as np

from minild.diffusion.schedule import NoiseSchedule
from minild.diffusion.sigmas import signal_and_noise, solver_steps

FEW = 15  # steps below which the last one is of first order with lower_order_final


def dpmpp_2m(predict, latents, schedule, steps, generators=None, lower_order_final=True, mix=None):
    """Yield the latents after each of `steps` steps of algorithm 2, (N, h, w, c), the last the sample.

    z_next = (σ_next / σ) z - α_next (e^-h - 1) D, with α = √ᾱ, σ = √(1 - ᾱ), λ = log(α / σ), h = λ_next - λ and
    D from `extrapolated`.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix: what a step mixes in, see minild.diffusion.
    """
    timesteps, levels = solver_steps(schedule, steps, whole_of(schedule))
    z, before = latents, None
    for i, t in enumerate(timesteps):
        (signal, noise), (signal_after, noise_after) = map(signal_and_noise, levels[i : i + 2])
        decay = levels[i + 1] / levels[i]  # e^-h
        clean, _ = schedule.predictions(predict(z, t), z, signal**2)
        data = extrapolated(clean, before, levels, i, lower_order_final)
        z = (noise_after / noise) * z - signal_after * (decay - 1) * data
        before = clean
        if mix:
            z = mix(z, signal_after**2)
        yield z


def whole_of(schedule):
    """How fractional timesteps are made whole: by these solvers cut off in the cosine schedule, as in the reference."""
    return np.floor if schedule.config["beta_schedule"] == "squaredcos_cap_v2" else np.round


def dpmpp_2m_karras(predict, latents, schedule, steps, generators=None, lower_order_final=True, mix=None):
    """dpmpp_2m at the levels of Karras et al. (arXiv 2206.00364, equation 5), whatever the schedule's own."""
    karras = NoiseSchedule(schedule.config | {"use_karras_sigmas": True}, schedule.given)
    return dpmpp_2m(predict, latents, karras, steps, generators, lower_order_final, mix)


def extrapolated(clean, before, levels, i, lower_order_final):
    """D = (1 + 1/2r) ẑ_0 - 1/2r ẑ_0,before with r = h_before / h: ẑ_0 continued to the middle of step i.

    The first step has nothing before it, and takes ẑ_0 as it is; so does the last where its h is infinite, or with
    lower_order_final where the steps are so few that the continuation would reach far.
    """
    last = i + 2 == len(levels)
    few = lower_order_final and len(levels) - 1 < FEW
    if before is None or (last and (levels[-1] == 0 or few)):
        return clean
    h_before, h = math.log(levels[i - 1] / levels[i]), math.log(levels[i] / levels[i + 1])
    return clean + (h / (2 * h_before)) * (clean - before)
