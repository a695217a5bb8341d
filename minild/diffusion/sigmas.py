"""The schedule as noise levels σ = √((1 - ᾱ) / ᾱ), for samplers that solve an equation in σ (arXiv 2206.00364).

With x = z / √ᾱ the noising is x = z_0 + σ ε, and dx/dσ = ε is the probability flow. The model still takes
z = x / √(σ² + 1), and ᾱ = 1 / (σ² + 1).
"""

import math
from itertools import pairwise

import numpy as np

from minild.errors import UserError

RHO = 7  # of equation 5
ALMOST_ZERO = 2.0**-24  # ᾱ_T of a schedule of zero terminal SNR, so that its σ is finite


def training_sigmas(schedule):
    """σ of every timestep, (T,) ascending."""
    alpha_bar = np.where(schedule.alphas_cumprod == 0, ALMOST_ZERO, schedule.alphas_cumprod)
    return np.sqrt((1 - alpha_bar) / alpha_bar)


def karras_sigmas(highest, lowest, steps):
    """`steps` levels equally far apart in σ^(1/ρ), equation 5 of arXiv 2206.00364."""
    sigmas = np.linspace(highest ** (1 / RHO), lowest ** (1 / RHO), steps) ** RHO
    # The ends are what was asked for, to the last bit: a level that comes again after them is then equal, not above.
    sigmas[-1], sigmas[0] = lowest, highest
    return sigmas


def timesteps_of(sigmas, schedule):
    """The fractional t of each σ, log σ taken as linear between timesteps: behind the last that lies below it.

    A schedule of zero terminal SNR may climb beyond the σ that its end is given, so that not every t is its own.
    """
    every, wanted = np.log(training_sigmas(schedule)), np.log(sigmas)
    t = np.arange(schedule.train_steps)
    below = np.where(every < wanted[:, None], t, 0).max(axis=1).clip(max=max(0, schedule.train_steps - 2))
    above = np.minimum(below + 1, schedule.train_steps - 1)
    rise = np.where(every[above] == every[below], 1, every[above] - every[below])
    return below + np.clip((wanted - every[below]) / rise, 0, 1)


def final_sigma(schedule):
    return 0.0 if schedule.config["final_sigmas_type"] == "zero" else float(training_sigmas(schedule)[0])


def sigma_steps(schedule, steps):
    """-> (timesteps, sigmas) as lists of numbers, N and N + 1 of them, for Euler's kin.

    "linspace" keeps t fractional here. Karras' levels span those of the spacing.
    """
    timesteps = schedule.timesteps(steps)
    if schedule.config["timestep_spacing"] == "linspace":
        timesteps = np.linspace(0, schedule.train_steps - 1, steps)[::-1]
    sigmas = np.interp(timesteps, np.arange(schedule.train_steps), training_sigmas(schedule))
    if schedule.config["use_karras_sigmas"]:
        sigmas = karras_sigmas(sigmas[0], sigmas[-1], steps)
        timesteps = timesteps_of(sigmas, schedule)
    return timesteps.tolist(), [*sigmas.tolist(), final_sigma(schedule)]


def initial_scale(schedule, sigmas):
    """What unit-variance noise is multiplied by. "leading" begins below T - 1, where a little of z_0 is still left."""
    leading = schedule.config["timestep_spacing"] == "leading"
    return math.hypot(max(sigmas), 1) if leading else max(sigmas)


def level_steps(timesteps, sigmas, skip=0):
    """(t, σ, σ_next, scale) of every step, a list without the first `skip`.

    scale: what x is divided by to be yielded, √(σ_next² + 1), and 1 for the last, which is the sample.
    """
    scales = [*(math.hypot(sigma, 1) for sigma in sigmas[1:-1]), 1.0]
    return list(zip(timesteps, sigmas, sigmas[1:], scales))[skip:]


def denoise(predict, schedule, x, t, sigma):
    """(ẑ_0, ε) of x = z_0 + σ ε, both like x."""
    z = x / math.hypot(sigma, 1)
    return schedule.predictions(predict(z, t), z, 1 / (sigma**2 + 1))


def require_falling(sigmas, sampler):
    """UserError where a level lies above the one before, so that no noise can take the sample from there to here."""
    for sigma, after in pairwise(sigmas):
        if after > sigma:
            raise UserError(
                f"sampler {sampler}: its noise levels rise from σ = {sigma:.4g} to {after:.4g}, as where "
                "rescale_betas_zero_snr meets betas as high as these: use another sampler"
            )


def solver_steps(schedule, steps, whole=np.round):
    """-> (timesteps, sigmas) as lists of numbers, N and N + 1 of them, for the solvers of order two and more.

    "leading" and "linspace" place N + 1 timesteps and drop the last. Karras' levels span the whole schedule, and the
    model gets their timesteps made `whole`.
    """
    spacing = schedule.config["timestep_spacing"]
    every = training_sigmas(schedule)
    if spacing == "trailing":
        timesteps = schedule.timesteps(steps)
    else:
        schedule.require_steps(steps, schedule.train_steps - 1)
        timesteps = schedule.timesteps(steps + 1)[:-1]
    sigmas = every[timesteps]
    if schedule.config["use_karras_sigmas"]:
        sigmas = karras_sigmas(every[-1], every[0], steps)
        timesteps = whole(timesteps_of(sigmas, schedule)).astype(int)
    return timesteps.tolist(), [*sigmas.tolist(), final_sigma(schedule)]


def signal_and_noise(sigma):
    """(√ᾱ, √(1 - ᾱ)) of a level: α_t and σ_t of the DPM-Solver papers."""
    return 1 / math.hypot(sigma, 1), sigma / math.hypot(sigma, 1)
