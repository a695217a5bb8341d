"""UniPC (Zhao et al. 2023, arXiv 2302.04867), predicting ẑ_0, with B(h) = e^h - 1."""

import math

import numpy as np

from minild.diffusion.sigmas import signal_and_noise, solver_steps


def weights(ratios, h):
    """a of R a = b (equations 5 and 9), R[k, j] = r_j^k, b[k] = (k + 1)! (-h) φ_(k+2)(-h) / B(-h): a list of numbers.

    φ_1(x) = (e^x - 1) / x and φ_(k+1)(x) = (φ_k(x) - 1 / k!) / x.
    """
    phi = math.expm1(-h) / -h
    b = []
    for k in range(1, len(ratios) + 1):
        phi = (phi - 1 / math.factorial(k)) / -h
        b.append(math.factorial(k) * phi * -h / math.expm1(-h))
    return np.linalg.solve(np.vander(ratios, increasing=True).T, b).tolist()


def unipc(predict, latents, schedule, steps, generators=None, solver_order=2, mix=None):
    """Yield the latents after each of `steps` steps of algorithms 5 to 8, (N, h, w, c), the last the sample.

    Both predictor and corrector are z_next = (σ_next / σ) z - α_next (e^-h - 1) (ẑ_0 + Σ_j a_j D_j), with
    D_j = (ẑ_0,j - ẑ_0) / r_j over earlier steps, r_j = (λ_j - λ) / h. The corrector has one j more: z_next itself
    with r = 1, so it costs no call of the model. It acts before the next step. Orders rise from 1 at the first step to
    `solver_order`, and fall to 1 at the last.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix: what a step mixes in, see minild.diffusion.
    """
    timesteps, levels = solver_steps(schedule, steps)
    log_snr = [-math.log(level) if level > 0 else math.inf for level in levels]  # λ

    def advance(z, i, cleans, order, there=None):
        """z of step i -> i + 1; cleans: ẑ_0 of the steps up to i; there: ẑ_0 at i + 1, for the corrector."""
        (_, noise), (signal_after, noise_after) = map(signal_and_noise, levels[i : i + 2])
        decay = levels[i + 1] / levels[i]  # e^-h
        h = log_snr[i + 1] - log_snr[i]
        ratios = [(log_snr[i - j] - log_snr[i]) / h for j in range(1, order)]
        slopes = [(cleans[-1 - j] - cleans[-1]) / ratio for j, ratio in enumerate(ratios, 1)]
        if there is not None:
            ratios, slopes = [*ratios, 1.0], [*slopes, there - cleans[-1]]
        a = [0.5] if len(ratios) == 1 else weights(ratios, h) if ratios else []  # of one: 1/2, as in the paper's code
        data = cleans[-1] + sum(weight * slope for weight, slope in zip(a, slopes))
        return (noise_after / noise) * z - signal_after * (decay - 1) * data

    z, start, cleans, order = latents, None, [], 0
    for i, t in enumerate(timesteps):
        signal, _ = signal_and_noise(levels[i])
        clean, _ = schedule.predictions(predict(z, t), z, signal**2)
        if i > 0:
            z = advance(start, i - 1, cleans, order, clean)
            if mix:  # once more: the corrector started from the latents before it
                z = mix(z, signal**2)
        cleans = [*cleans, clean][-solver_order:]
        order = min(solver_order, i + 1, steps - i)
        start = z
        z = advance(start, i, cleans, order)
        if mix:
            z = mix(z, signal_and_noise(levels[i + 1])[0] ** 2)
        yield z
