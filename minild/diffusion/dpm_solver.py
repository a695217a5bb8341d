"""DPM-Solver (Lu et al. 2022, arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), multistep.

In λ = log(α / σ), with α = √ᾱ and σ = √(1 - ᾱ), the diffusion's equation has a linear part that is solved exactly, and
an integral of what the model predicts, be it ε (DPM-Solver) or ẑ_0 (DPM-Solver++). The prediction is continued over the
step as a polynomial of λ: `advance` integrates one that is given by its terms D_k, and the solvers differ in where they
have the terms from.
"""

import math
from functools import partial

import numpy as np

from minild.backend import device_of, to_device
from minild.diffusion.schedule import NoiseSchedule
from minild.diffusion.sigmas import require_falling, signal_and_noise, solver_steps
from minild.diffusion.start import NOISE
from minild.errors import UserError
from minild.random import standard_normal

FEW = 15  # steps below which the order falls at the end with lower_order_final
OF_NOISE = ("dpmsolver", "sde-dpmsolver")
STOCHASTIC = ("sde-dpmsolver++", "sde-dpmsolver")


def dpm_multistep(
    predict,
    latents,
    schedule,
    steps,
    generators=None,
    algorithm_type="dpmsolver++",
    solver_order=2,
    solver_type="midpoint",
    lower_order_final=True,
    euler_at_final=False,
    mix=None,
    start=NOISE,
):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    arXiv 2211.01095, algorithm 2 and section 5, and the authors' code for order 3: the terms D_k of `advance` are
    divided differences of the last predictions. Orders rise from 1 at the first step to `solver_order`, 1 to 3, and
    fall to 1 as `multistep_orders` says.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image,
    needed by the "sde-" algorithms; mix, start: see minild.diffusion. UserError for an algorithm that
    cannot end at the schedule's final_sigmas_type.
    """
    timesteps, levels = solver_steps(schedule, steps, whole_of(schedule))
    require_possible(levels, algorithm_type)
    orders = multistep_orders(steps, solver_order, lower_order_final, start.skip)
    if euler_at_final or levels[-1] == 0:
        orders[-1] = 1
    z = start.latents(latents, signal_and_noise(levels[start.skip])[0] ** 2)
    history = []  # (λ, prediction) of the last steps, newest first
    for i, (t, order) in enumerate(zip(timesteps[start.skip :], orders), start.skip):
        prediction = predicted(predict, schedule, z, t, levels[i], algorithm_type)
        history = [(-math.log(levels[i]), prediction), *history[:2]]
        terms = backward_terms(history[:order], step_length(*levels[i : i + 2]))
        midpoint = order == 2 and solver_type != "heun"
        z = advance(z, terms, *levels[i : i + 2], algorithm_type, midpoint, generators)
        if mix:
            z = mix(z, signal_and_noise(levels[i + 1])[0] ** 2)
        yield z


dpmpp_2m_sde = partial(dpm_multistep, algorithm_type="sde-dpmsolver++")
dpmpp_3m = partial(dpm_multistep, solver_order=3)
dpmpp_3m_sde = partial(dpm_multistep, algorithm_type="sde-dpmsolver++", solver_order=3)


def dpmpp_2m_karras(predict, latents, schedule, steps, generators=None, **settings):
    """dpm_multistep at the levels of Karras et al. (arXiv 2206.00364, equation 5), whatever the schedule's own."""
    karras = NoiseSchedule(schedule.config | {"use_karras_sigmas": True}, schedule.given)
    return dpm_multistep(predict, latents, karras, steps, generators, **settings)


def dpm_solver(predict, latents, schedule, steps, generators=None, algorithm_type="dpmsolver", **settings):
    """dpm_multistep of ε, which ends at t = 0's level, whatever the schedule says: its λ must be finite."""
    ending = NoiseSchedule(schedule.config | {"final_sigmas_type": "sigma_min"}, schedule.given)
    return dpm_multistep(predict, latents, ending, steps, generators, algorithm_type, **settings)


dpm_solver_sde = partial(dpm_solver, algorithm_type="sde-dpmsolver")


def whole_of(schedule):
    """How fractional timesteps are made whole: by this solver cut off in the cosine schedule, as in the reference."""
    return np.floor if schedule.config["beta_schedule"] == "squaredcos_cap_v2" else np.round


def require_possible(levels, algorithm_type):
    """UserError where a step cannot be taken: to λ = ∞, where the integral of ε has no end, or upwards with noise."""
    if algorithm_type in OF_NOISE and levels[-1] == 0:
        raise UserError(
            f"algorithm_type = {algorithm_type!r} cannot end at final_sigmas_type = 'zero': use 'sigma_min', "
            "or an algorithm_type with '++'"
        )
    if algorithm_type in STOCHASTIC:
        require_falling(levels, algorithm_type)


def multistep_orders(steps, solver_order, lower_order_final, skip=0):
    """The order of every step but the first `skip`, which are left out: as high as there are predictions for, and with
    lower_order_final 2 and 1 at the end.
    """
    falls = lower_order_final and steps < FEW
    return [min(solver_order, i - skip + 1, steps - i if falls else solver_order) for i in range(skip, steps)]


def predicted(predict, schedule, z, t, level, algorithm_type):
    """What the algorithm integrates: ε or ẑ_0 at z, like z."""
    clean, epsilon = schedule.predictions(predict(z, t), z, signal_and_noise(level)[0] ** 2)
    return epsilon if algorithm_type in OF_NOISE else clean


def step_length(level, after):
    """h = λ_next - λ, from σ / α."""
    return math.log(level / after) if after > 0 else math.inf


def backward_terms(history, h):
    """[D_0, D_1, D_2], as many as there are (λ, prediction), newest first: a step of length h from the newest.

    D_1 = h f' there and, as in the authors' code, D_2 = h² f'' / 2, by Newton's divided differences.
    """
    (here, prediction), *earlier = history
    if not earlier:
        return [prediction]
    slopes = [(f - g) * (1 / (a - b)) for (a, f), (b, g) in zip(history, earlier)]
    if len(slopes) == 1:
        return [prediction, h * slopes[0]]
    curve = (slopes[0] - slopes[1]) * (1 / (here - earlier[1][0]))
    return [prediction, h * (slopes[0] + (here - earlier[0][0]) * curve), h**2 * curve]


def advance(z, terms, level, after, algorithm_type, midpoint=False, generators=None):
    """z at σ / α = level -> at `after`: keep · z - gain · Σ_k w_k D_k + spread · noise, D_k the `terms`.

    algorithm_type    x      keep              gain       spread
    dpmsolver++       -h     σ_next/σ          α_next     0
    sde-dpmsolver++   -2h    σ_next/σ · e^-h   α_next     σ_next √(1 - e^-2h)
    dpmsolver         h      α_next/α          σ_next     0
    sde-dpmsolver     h      α_next/α          2 σ_next   σ_next √(e^2h - 1)

    w_0 = e^x - 1, w_1 = w_0 / x - 1 and w_2 = w_1 / x - 1/2; with `midpoint` w_1 = w_0 / 2.
    """
    (signal, noise), (signal_after, noise_after) = map(signal_and_noise, (level, after))
    h = step_length(level, after)
    stochastic = algorithm_type in STOCHASTIC
    if algorithm_type in OF_NOISE:
        x, keep, gain = h, signal_after / signal, (2 if stochastic else 1) * noise_after
        spread = noise_after * math.sqrt(math.expm1(2 * h)) if stochastic else 0.0
    else:
        x, keep, gain = -(2 if stochastic else 1) * h, noise_after / noise, signal_after
        keep *= after / level if stochastic else 1
        spread = noise_after * math.sqrt(-math.expm1(x)) if stochastic else 0.0
    weights = integrals(x, midpoint)
    if algorithm_type == "sde-dpmsolver++":
        weights[2] += 1  # as the reference has it, a sign astray: with order 3 some noise stays in the sample
    z = keep * z
    for weight, term in zip(weights, terms):
        z = z - gain * weight * term
    if spread > 0:
        fresh = standard_normal(generators, z.shape[1:], z.dtype)
        z = z + spread * to_device(fresh, device_of(z))
    return z


def integrals(x, midpoint):
    """[w_0, w_1, w_2] of `advance`, all 0 for a step of no length."""
    first = math.expm1(x)
    second = first / x - 1 if x else 0.0
    third = second / x - 0.5 if x else 0.0
    return [first, first / 2 if midpoint else second, third]
