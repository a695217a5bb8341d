"""DPM-Solver (Lu et al. 2022, arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), singlestep."""

import math

from minild.diffusion.dpm_solver import advance, predicted, require_possible, step_length
from minild.diffusion.schedule import NoiseSchedule
from minild.diffusion.sigmas import signal_and_noise, solver_steps
from minild.diffusion.start import NOISE


def dpm_singlestep(
    predict,
    latents,
    schedule,
    steps,
    generators=None,
    algorithm_type="dpmsolver++",
    solver_order=2,
    solver_type="midpoint",
    lower_order_final=False,
    mix=None,
    start=NOISE,
):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    arXiv 2206.00927, algorithms 1 and 2, and 2211.01095, algorithm 1: up to `solver_order` steps, 1 to 3, form one.
    Each begins again where the first of them began, with the predictions made since: of order 1, 2 and 3.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: one an image,
    needed by the "sde-" algorithm; mix, start: see minild.diffusion. The spacing is "linspace" in
    every schedule, as in the reference. UserError for an algorithm that cannot end at `final_sigmas_type`.
    """
    linspace = NoiseSchedule(schedule.config | {"timestep_spacing": "linspace"}, schedule.given)
    timesteps, levels = solver_steps(linspace, steps)
    require_possible(levels, algorithm_type)
    orders = singlestep_orders(steps, solver_order, lower_order_final, levels)
    z, since = start.latents(latents, signal_and_noise(levels[start.skip])[0] ** 2), []
    for i, (t, order) in enumerate(zip(timesteps[start.skip :], orders[start.skip :]), start.skip):
        prediction = predicted(predict, schedule, z, t, levels[i], algorithm_type)
        order = min(order, len(since) + 1)  # a late start may fall within a round
        if order == 1:
            first, since = z, []
        since = [*since, (-math.log(levels[i]), prediction)]  # (λ, prediction), oldest first
        begin = levels[i + 1 - order]
        heun = solver_type == "heun"
        terms = forward_terms(since, step_length(begin, levels[i + 1]), heun)
        z = advance(first, terms, begin, levels[i + 1], algorithm_type, order == 2 and not heun, generators)
        if mix:
            z = mix(z, signal_and_noise(levels[i + 1])[0] ** 2)
        yield z


def singlestep_orders(steps, solver_order, lower_order_final, levels):
    """The order of every step: 1, 2, 3, 1, 2, 3, ..., the last 1 where λ ends at ∞, or a whole round would end."""
    orders = [i % solver_order + 1 for i in range(steps)]
    if levels[-1] == 0 or (lower_order_final and steps % solver_order == 0):
        orders[-1] = 1
    return orders


def forward_terms(since, h, heun):
    """[D_0, D_1, D_2], as many as needed, of the (λ, prediction) `since` a start, a step of length h from there.

    Of three, "midpoint" has the slope to the newest alone, and "heun" the parabola's, D_1 = h f' and D_2 = h² f''.
    """
    (start, prediction), *later = since
    slopes = [(f - prediction) * (1 / (a - start)) for a, f in later]
    if len(slopes) < 2 or not heun:
        return [prediction, *(h * slope for slope in slopes[-1:])]
    (near, _), (far, _) = later
    curve = (slopes[1] - slopes[0]) * (1 / (far - near))
    return [prediction, h * (slopes[0] - (near - start) * curve), 2 * h**2 * curve]
