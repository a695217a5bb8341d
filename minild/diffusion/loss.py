"""The ε loss of latent diffusion."""

from typing import Any, NamedTuple

from minild.diffusion.schedule import add_noise
from minild.engine import run
from minild.ops.loss import mse


class EpsilonLossCache(NamedTuple):
    model: Any
    model_cache: Any
    mse: Any


def epsilon_loss(model, z, noise, t, levels, context):
    """L = ‖ε - ε_θ(z_t, t, τ_θ(y))‖², the mean over all elements (latent diffusion paper, equation 3).

    model: a Module of (x, t, context); z and noise (N, h, w, c); t (N,); levels: NoiseSchedule.noise_levels(t) on the
    device; context (N, L, D) -> scalar, cache.
    """
    predicted, model_cache = model.forward(add_noise(z, noise, *levels), t, context)
    loss, mse_cache = run(mse, predicted, noise)
    return loss, EpsilonLossCache(model, model_cache, mse_cache)


def epsilon_loss_backward(dy, cache):
    """dy a number. Adds into the model's gradients; -> dcontext (N, L, D)."""
    dpredicted, _ = cache.mse.backward(dy)
    _, _, dcontext = cache.model.backward(dpredicted, cache.model_cache)
    return dcontext
