"""DEIS (Zhang & Chen 2022, arXiv 2204.13902), its tAB method in log ρ."""

import math
from collections import deque

from numpy.polynomial import Polynomial

from minild.diffusion.dpm_solver import multistep_orders
from minild.diffusion.sigmas import signal_and_noise, solver_steps, training_sigmas
from minild.diffusion.start import NOISE


def integrals(nodes, start, stop):
    """∫ l_j(log ρ) dρ from start to stop, l_j 1 at log nodes[j] and 0 at the others (equation 15): a list of numbers.

    With u = log ρ it is ∫ l_j(u) e^u du = (l_j - l_j' + l_j'' - ...) e^u.
    """
    values = []
    for j, node in enumerate(nodes):
        others = [math.log(other) for k, other in enumerate(nodes) if k != j]
        polynomial = Polynomial.fromroots(others) if others else Polynomial([1.0])
        antiderivative, derivative = Polynomial([0.0]), polynomial / polynomial(math.log(node))
        for sign in (1, -1, 1):
            antiderivative, derivative = antiderivative + sign * derivative, derivative.deriv()
        values.append(float(antiderivative(math.log(stop)) * stop - antiderivative(math.log(start)) * start))
    return values


def deis(
    predict,
    latents,
    schedule,
    steps,
    generators=None,
    solver_order=2,
    lower_order_final=True,
    mix=None,
    start=NOISE,
):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    With ρ = σ/α, α = √ᾱ, σ = √(1 - ᾱ) and x = z/α the probability flow is dx/dρ = ε, and
    x_next = x + Σ_j ε_j ∫ l_j(log ρ) dρ over [ρ, ρ_next] (equation 14), the l_j through the last levels. Orders rise
    from 1 at the first step to `solver_order`, 1 to 3; with lower_order_final they fall at the end where the steps are
    few. Since log ρ has no zero the last step goes to t = 0's ρ, which Karras' levels have reached before it.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion.
    """
    timesteps, levels = solver_steps(schedule, steps)
    karras = schedule.config["use_karras_sigmas"]
    levels[-1] = levels[-2] if karras else float(training_sigmas(schedule)[0])
    orders = multistep_orders(steps, solver_order, lower_order_final, start.skip)
    z = start.latents(latents, signal_and_noise(levels[start.skip])[0] ** 2)
    nodes, epsilons = deque(maxlen=3), deque(maxlen=3)
    for i, (t, order) in enumerate(zip(timesteps[start.skip :], orders), start.skip):
        (signal, _), (signal_after, _) = map(signal_and_noise, levels[i : i + 2])
        nodes.appendleft(levels[i])
        epsilons.appendleft(schedule.predictions(predict(z, t), z, signal**2)[1])
        x = z / signal
        for weight, epsilon in zip(integrals(list(nodes)[:order], *levels[i : i + 2]), epsilons):
            x = x + weight * epsilon
        z = signal_after * x
        if mix:
            z = mix(z, signal_after**2)
        yield z
