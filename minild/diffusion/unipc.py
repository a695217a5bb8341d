"""UniPC (Zhao et al. 2023, arXiv 2302.04867)."""

import math

import numpy as np

from minild.diffusion.sigmas import signal_and_noise, solver_steps
from minild.diffusion.start import NOISE
from minild.errors import UserError


def weights(ratios, x, scale):
    """B a of R a = b (equations 5 and 9), R[k, j] = r_j^k, B b[k] = (k + 1)! x φ_(k+2)(x): a list of numbers.

    φ_1(x) = (e^x - 1) / x and φ_(k+1)(x) = (φ_k(x) - 1 / k!) / x. B = `scale` cancels, except for a single ratio: there
    a is 1/2, as in the paper's code.
    """
    if len(ratios) == 1:
        return [scale / 2]
    phi = math.expm1(x) / x
    b = []
    for k in range(1, len(ratios) + 1):
        phi = (phi - 1 / math.factorial(k)) / x
        b.append(math.factorial(k) * phi * x)
    return np.linalg.solve(np.vander(ratios, increasing=True).T, b).tolist()


def unipc(
    predict,
    latents,
    schedule,
    steps,
    generators=None,
    solver_order=2,
    solver_type="bh2",
    predict_x0=True,
    lower_order_final=True,
    disable_corrector=(),
    mix=None,
    start=NOISE,
):
    """Yield the latents after each of `steps` steps of algorithms 5 to 8, (N, h, w, c), the last the sample.

    With h = λ_next - λ, both predictor and corrector are z_next = (σ_next / σ) z - α_next ((e^x - 1) m + Σ_j B a_j D_j)
    where m = ẑ_0 and x = -h; without predict_x0 (α_next / α) z - σ_next (the same) where m = ε and x = h. D_j =
    (m_j - m) / r_j is over earlier steps, r_j = (λ_j - λ) / h, and B is e^x - 1, or x where solver_type = "bh1". The
    corrector has one j more: z_next itself with r = 1, so it costs no call of the model. It acts before the next step,
    unless this one's number is in disable_corrector. Orders rise from 1 at the first step to `solver_order`, and with
    lower_order_final fall to 1 at the last.

    predict(latents, t) -> the model's output, like latents; latents: unit-variance noise; generators: not used;
    mix, start: see minild.diffusion. UserError where h ends infinite and the method has no limit there.
    """
    timesteps, levels = solver_steps(schedule, steps)
    ends_first = lower_order_final or solver_order == 1 or steps == 1
    if levels[-1] == 0 and not (predict_x0 and ends_first and solver_type != "bh1"):
        needed = "predict_x0, lower_order_final and solver_type = 'bh2'"
        raise UserError(f"sampler unipc: final_sigmas_type = 'zero' needs {needed}: use 'sigma_min'")
    log_snr = [-math.log(level) if level > 0 else math.inf for level in levels]  # λ

    def advance(z, i, outputs, order, there=None):
        """z of step i -> i + 1; outputs: m of the steps up to i; there: m at i + 1, for the corrector."""
        (signal, noise), (signal_after, noise_after) = map(signal_and_noise, levels[i : i + 2])
        h = log_snr[i + 1] - log_snr[i]
        if h == 0:  # a last level that is the lowest of the schedule, and was there already
            return z
        x, keep, gain = -h, noise_after / noise, signal_after
        if not predict_x0:
            x, keep, gain = h, signal_after / signal, noise_after
        ratios = [(log_snr[i - j] - log_snr[i]) / h for j in range(1, order)]
        slopes = [(outputs[-1 - j] - outputs[-1]) / ratio for j, ratio in enumerate(ratios, 1)]
        if there is not None:
            ratios, slopes = [*ratios, 1.0], [*slopes, there - outputs[-1]]
        a = weights(ratios, x, x if solver_type == "bh1" else math.expm1(x)) if ratios else []
        integral = math.expm1(x) * outputs[-1] + sum(weight * slope for weight, slope in zip(a, slopes))
        return keep * z - gain * integral

    z = start.latents(latents, signal_and_noise(levels[start.skip])[0] ** 2)
    before, outputs, order = None, [], 0  # before: z before the last step
    for i, t in enumerate(timesteps[start.skip :], start.skip):
        signal, _ = signal_and_noise(levels[i])
        clean, epsilon = schedule.predictions(predict(z, t), z, signal**2)
        output = clean if predict_x0 else epsilon
        if outputs and i - 1 not in disable_corrector:
            z = advance(before, i - 1, outputs, order, output)
            if mix:  # once more: the corrector started from the latents before it
                z = mix(z, signal**2)
        outputs = [*outputs, output][-solver_order:]
        order = min(solver_order, i - start.skip + 1, steps - i if lower_order_final else solver_order)
        before, z = z, advance(z, i, outputs, order)
        if mix:
            z = mix(z, signal_and_noise(levels[i + 1])[0] ** 2)
        yield z
