"""Clean latents and noise are found at ᾱ_t, and mixed anew at ᾱ_prev; what fresh noise brings, the old one gives up."""

import math

import numpy as np


def ddim(predict, latents, schedule, steps, generators=None, eta=0.0):
    stride = schedule.train_steps // steps
    for t in schedule.timesteps(steps).tolist():
        now, before = schedule.alpha_bar(t), schedule.alpha_bar(t - stride)
        clean, epsilon = schedule.predictions(predict(latents, t), latents, now)
        sigma = eta * math.sqrt((1 - before) / (1 - now) * max(0.0, 1 - now / before))
        latents = math.sqrt(before) * clean + math.sqrt(max(0.0, 1 - before - sigma**2)) * epsilon
        if sigma > 0:
            noise = np.stack([g.standard_normal(latents.shape[1:], dtype=np.float32) for g in generators])
            latents = latents + sigma * noise.astype(latents.dtype)
        yield latents
