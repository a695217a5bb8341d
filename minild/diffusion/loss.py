"""The ε loss of latent diffusion."""

from typing import Any, NamedTuple

from minild.diffusion.schedule import add_noise
from minild.ops.loss import mse, mse_backward


class EpsilonLossCache(NamedTuple):
    model: Any
    mse: Any


def epsilon_loss(model, z, noise, t, levels, context):
    """L = ‖ε - ε_θ(z_t, t, τ_θ(y))‖², the mean over all elements (latent diffusion paper, equation 3).

    model: a Module of (x, t, context); z and noise (N, h, w, c); t (N,); levels: NoiseSchedule.noise_levels(t) on the
    device; context (N, L, D) -> scalar, cache.
    """
    predicted, model_cache = model.forward(add_noise(z, noise, *levels), t, context)
    loss, mse_cache = mse(predicted, noise)
    return loss, EpsilonLossCache(model_cache, mse_cache)


def epsilon_loss_backward(dy, model, cache):
    """Adds into the model's gradients; -> dcontext (N, L, D)."""
    dpredicted, _ = mse_backward(dy, cache.mse)
    _, _, dcontext = model.backward(dpredicted, cache.model)
    return dcontext
