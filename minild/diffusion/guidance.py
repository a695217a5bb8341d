"""Guidance: classifier-free (Ho & Salimans 2022, arXiv 2207.12598), rescaled (Lin et al. 2023), or by a classifier."""

import math

import numpy as np

from minild.backend import get_array_module
from minild.errors import UserError


def guided(model, context, negative_context, guidance_scale, rescale=0.0, passes=None):
    """predict(latents, t) -> ε_negative + s · (ε_context - ε_negative), then `rescaled`.

    model(x, t, context) -> ε with t (N,); context and negative_context (N, L, D), or named tuples of arrays, such as
    models.Condition, where more than words leads the model. At scale 1 the negative half cancels and is not computed.
    Both halves are one pass over [negative, context]; or two, made through `passes`, a map() that may run them side by
    side.
    """
    def evaluate(latents, t, context):
        xp = get_array_module(latents)
        return model(latents, xp.full((len(latents),), t, latents.dtype), context)

    if guidance_scale == 1:
        return lambda latents, t: evaluate(latents, t, context)
    both = joined(negative_context, context)

    def predict(latents, t):
        if passes is None:
            xp = get_array_module(latents)
            negative, positive = xp.split(evaluate(xp.concatenate([latents, latents]), t, both), 2)
        else:
            negative, positive = passes(lambda half: evaluate(latents, t, half), (negative_context, context))
        epsilon = negative + guidance_scale * (positive - negative)
        return rescaled(epsilon, positive, rescale) if rescale else epsilon

    return predict


def joined(first, second):
    """Two conditions as one batch: arrays one after the other, and so those of named tuples, None where both are."""
    if isinstance(first, tuple):
        return type(first)(*(None if one is None else joined(one, other) for one, other in zip(first, second)))
    return get_array_module(first).concatenate([first, second])


def rescaled(epsilon, positive, rescale):
    """ε · (φ σ_positive / σ + 1 - φ): the guided ε gets back, by φ = `rescale`, the contrast of the positive half.

    ε and positive (N, h, w, c) -> the same, σ over each picture; φ in [0, 1]. (Lin et al. 2023, arXiv 2305.08891,
    section 3.4: of a large s the pictures are overexposed.)
    """
    sigma, sigma_positive = deviation(epsilon), deviation(positive)
    ratio = sigma_positive / (sigma + np.finfo(sigma.dtype).tiny)  # zeros stay zeros
    return epsilon * (rescale * ratio + (1 - rescale)).astype(epsilon.dtype, copy=False)


def deviation(x):
    """The standard deviation of each picture, (N, h, w, c) -> (N, 1, 1, 1), in float32 or better."""
    return x.std(axis=(1, 2, 3), keepdims=True, dtype=np.promote_types(x.dtype, "float32"))


def classifier_guided(predict, gradient, scale, schedule):
    """predict(latents, t) -> ε - s √(1 - ᾱ_t) ∇_z log p(y | z_t), led by a classifier of noisy latents.

    (Dhariwal & Nichol 2021, arXiv 2105.05233, algorithm 2.) predict(latents, t) -> what the schedule's prediction_type
    says; gradient(latents, t) -> ∇_z log p(y | z_t) like latents, t (N,); scale: s. Of a model of v or of z_0 it is the
    output that says that same ε. In a step of DDPM the mean moves by s β_t / √α_t ∇ log p: algorithm 1, the mean moved
    by s Σ ∇ log p with Σ = β_t, but for √α_t, which is nearly 1. UserError for another prediction_type.
    """
    kind = schedule.config["prediction_type"]
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise UserError(f"a classifier cannot lead a model of prediction_type = {kind!r}: leave it out")

    def led(latents, t):
        output = predict(latents, t)
        # Some samplers visit timesteps between whole ones.
        alpha_bar = float(np.interp(float(t), np.arange(schedule.train_steps), schedule.alphas_cumprod))
        signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        if signal == 0:  # z_t is noise alone, and says nothing of y
            return output
        factor = {"epsilon": -noise, "v_prediction": -noise / signal, "sample": noise**2 / signal}[kind]
        xp, c = get_array_module(latents), latents.shape[-1]
        moved = output[..., :c] + scale * factor * gradient(latents, xp.full((len(latents),), t, latents.dtype))
        return moved if output.shape[-1] == c else xp.concatenate([moved, output[..., c:]], axis=-1)  # its variance

    return led
