"""Euler's method on a rectified flow (Liu et al. 2022, arXiv 2209.03003)."""

import math
from itertools import pairwise

from minild.backend import device_of, to_device
from minild.diffusion.start import NOISE
from minild.random import standard_normal


def flow_euler(predict, latents, schedule, steps, generators=None, mix=None, start=NOISE, stochastic_sampling=False):
    """Yield the latents after each of `steps` steps, (N, h, w, c), the last the sample.

    dz/dt = v from t = 1 to 0: z_next = z + (t_next - t) v. With stochastic_sampling ẑ_0 = z - t v is noised anew,
    z_next = (1 - t_next) ẑ_0 + t_next ε, as the reference has it for models of few steps: of many, variance is lost.

    predict(latents, T t) -> v, like latents; latents: unit-variance noise; schedule: a FlowSchedule; generators: one an
    image, used where sampling is stochastic; mix, start: see minild.diffusion. There, z / s is yielded
    and mixed, with s = √((1 - t)² + t²) and √ᾱ = (1 - t) / s.
    """
    times = schedule.times(steps)[start.skip :]
    z = latents if start.clean is None else (1 - times[0]) * start.clean + times[0] * latents
    for t, after in pairwise(times):
        v = predict(z, schedule.train_steps * t)
        if stochastic_sampling:
            z = (1 - after) * (z - t * v)
            if after > 0:
                noise = standard_normal(generators, latents.shape[1:], latents.dtype)
                z = z + after * to_device(noise, device_of(latents))
        else:
            z = z + (after - t) * v
        scale = math.hypot(1 - after, after)
        if mix:
            z = scale * mix(z / scale, ((1 - after) / scale) ** 2)
        yield z / scale
