"""PNDM: pseudo numerical methods on manifolds (Liu, Ren, Lin & Zhao 2022, arXiv 2202.09778)."""

import math

from minild.diffusion.start import NOISE

# Adams-Bashforth: weights of the last outputs, newest first (equation 12 has the four).
WEIGHTS = {
    1: (1,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def pndm(predict, latents, schedule, steps, generators=None, skip_prk_steps=True, mix=None, start=NOISE):
    """Yield the latents after each of `steps` steps of algorithm 2, (N, h, w, c), the last the sample.

    z_prev = φ(z, Σ_j w_j e_j, t, t_prev), equation 11: DDIM's step with the Adams-Bashforth sum of the last four
    outputs. The first three steps have no history: either Runge-Kutta takes them, four calls of the model each
    (equation 13), or with skip_prk_steps the first is Heun's, of two calls, and orders 2 and 3 follow, which is PLMS.
    N steps then call the model N + 1 times.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion.
    """
    stride = schedule.train_steps // steps
    timesteps = schedule.timesteps(steps).tolist()  # plain numbers: a NumPy scalar would promote float32
    warm_up = min(start.skip + (1 if skip_prk_steps else 3), steps - 1)
    latents = start.latents(latents, schedule.alpha_bar(timesteps[start.skip]))
    history = []  # outputs, newest first
    for i, t in enumerate(timesteps[start.skip :], start.skip):
        output = predict(latents, t)
        history = [output, *history[:3]]
        before = t - stride if i >= warm_up else timesteps[i + 1]
        if i >= warm_up:
            output = sum(weight * e for weight, e in zip(WEIGHTS[len(history)], history))
            latents = transfer(schedule, latents, output, t, before)
        elif skip_prk_steps:
            there = predict(transfer(schedule, latents, output, t, t - stride), before)
            latents = transfer(schedule, latents, (output + there) / 2, before + stride, before)
        else:
            latents = runge_kutta(predict, schedule, latents, output, t, before, stride // 2)
        if mix:
            latents = mix(latents, schedule.alpha_bar(before))
        yield latents


def transfer(schedule, z, output, t, before):
    """φ: from z at t to `before` by the model's output there; `before` below 0 is past the first timestep."""
    previous = schedule.alpha_bar(before)
    clean, epsilon = schedule.predictions(output, z, schedule.alpha_bar(t))
    return math.sqrt(previous) * clean + math.sqrt(1 - previous) * epsilon


def runge_kutta(predict, schedule, z, first, t, before, half):
    """z at t -> z at `before` by the classical method of order four, `first` the output at (z, t)."""
    second = predict(transfer(schedule, z, first, t, t - half), before + half)
    third = predict(transfer(schedule, z, second, t, before + half), before + half)
    fourth = predict(transfer(schedule, z, third, t, before), before)
    return transfer(schedule, z, (first + 2 * second + 2 * third + fourth) / 6, t, before)
