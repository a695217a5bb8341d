"""The posterior for a stride: α_t becomes the ratio of the two ᾱ. The last step goes to ᾱ = 1, and adds no noise."""

import math

import numpy as np


def ddpm(predict, latents, schedule, steps, generators):
    timesteps = schedule.timesteps(steps).tolist()
    for t, following in zip(timesteps, [*timesteps[1:], None]):
        now = schedule.alpha_bar(t)
        before = 1.0 if following is None else schedule.alpha_bar(following)
        alpha = now / before
        clean, _ = schedule.predictions(predict(latents, t), latents, now)
        latents = (math.sqrt(before) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - before) * latents) / (1 - now)
        variance = (1 - before) / (1 - now) * (1 - alpha)
        if following is not None:
            noise = np.stack([g.standard_normal(latents.shape[1:], dtype=np.float32) for g in generators])
            latents = latents + math.sqrt(variance) * noise.astype(latents.dtype)
        yield latents
