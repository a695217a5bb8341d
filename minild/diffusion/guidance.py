"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598)."""

from minild.backend import get_array_module


def guided(model, context, negative_context, guidance_scale):
    """predict(latents, t) -> ε_negative + s · (ε_context - ε_negative), both from one pass over [negative, context].

    model(x, t, context) -> ε with t (N,); context and negative_context (N, L, D). At scale 1 the negative half cancels
    and is not computed.
    """
    xp = get_array_module(context)
    if guidance_scale == 1:
        return lambda latents, t: model(latents, xp.full((len(latents),), t, latents.dtype), context)
    both = xp.concatenate([negative_context, context])

    def predict(latents, t):
        pair = xp.concatenate([latents, latents])
        negative, positive = xp.split(model(pair, xp.full((len(pair),), t, latents.dtype), both), 2)
        return negative + guidance_scale * (positive - negative)

    return predict
