"""A linear multistep method on the probability flow: Adams-Bashforth for unequal steps in σ (arXiv 2206.00364)."""

from collections import deque

from numpy.polynomial import Polynomial

from minild.diffusion.sigmas import denoise, level_steps, sigma_steps
from minild.diffusion.start import NOISE


def lagrange_integrals(nodes, start, stop):
    """∫ from start to stop of each Lagrange polynomial l_j (1 at nodes[j], 0 at the others), a list of numbers."""
    integrals = []
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        polynomial = Polynomial.fromroots(others) if others else Polynomial([1.0])
        antiderivative = (polynomial / polynomial(node)).integ()
        integrals.append(float(antiderivative(stop) - antiderivative(start)))
    return integrals


def lms(predict, latents, schedule, steps, generators=None, order=4, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    x_next = x + Σ_j ε_j ∫ l_j(s) ds over [σ, σ_next], l_j the Lagrange polynomials of the last `order` levels σ_j:
    the exact integral of the polynomial through their ε_j. x = z_0 + σ ε; z = x / √(σ_next² + 1) is yielded, the last x
    as it is.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion.
    """
    timesteps, sigmas = sigma_steps(schedule, steps)
    x = start.levels(latents, schedule, sigmas)
    nodes, epsilons = deque(maxlen=order), deque(maxlen=order)
    for t, sigma, after, scale in level_steps(timesteps, sigmas, start.skip):
        nodes.appendleft(sigma)
        epsilons.appendleft(denoise(predict, schedule, x, t, sigma)[1])
        for weight, epsilon in zip(lagrange_integrals(nodes, sigma, after), epsilons):
            x = x + weight * epsilon
        if mix:
            x = scale * mix(x / scale, 1 / scale**2)
        yield x / scale
