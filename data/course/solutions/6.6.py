"""From the answer for the negative context, `guidance_scale` times the way to the answer for the caption."""

import numpy as np

from minild.diffusion.guidance import rescaled


def guided(model, context, negative_context, guidance_scale, rescale=0.0):
    def predict(latents, t):
        t = np.full(len(latents), t, latents.dtype)
        negative, positive = model(latents, t, negative_context), model(latents, t, context)
        epsilon = negative + guidance_scale * (positive - negative)
        return rescaled(epsilon, positive, rescale) if rescale else epsilon

    return predict
