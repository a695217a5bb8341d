"""The variance of DDPM's steps: fixed, or told by the model; and the loss that teaches a model to tell it."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.diffusion.loss import target_of, weighted_mse
from minild.diffusion.schedule import add_noise
from minild.engine import run
from minild.errors import UserError
from minild.ops.loss import gaussian_cross_entropy

FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
LEARNED = ("learned", "learned_range")
SMALLEST = 1e-20  # of a variance whose logarithm is taken
VLB_WEIGHT = 0.001  # λ of L_hybrid


def split_output(output, latents, kind):
    """The model's output -> (what its prediction_type says, like latents; what it says of the variance, or None).

    UserError where the variance is to be learned and the model has no channels for it.
    """
    c = latents.shape[-1]
    if kind not in LEARNED:
        return output, None
    if output.shape[-1] != 2 * c:
        channels = f"{2 * c} output channels for latents of {c}, the U-Net has {output.shape[-1]}"
        raise UserError(f"sampler ddpm: variance_type = {kind!r} needs {channels}: use another sampler")
    return output[..., :c], output[..., c:]


def step_deviation(kind, told, small, large):
    """σ of the noise that a step of DDPM adds: a number, or like `told` where the model tells it.

    small: β̃ = (1 - ᾱ_prev) / (1 - ᾱ) β, the posterior's variance; large: β = 1 - α. "fixed_small" and "fixed_large" are
    these (Ho et al. 2020, section 3.2), with "_log" computed by way of logarithms in the reference, and the same.
    "learned": `told` is σ² itself; below 0 it is 0. "learned_range": with f = (told + 1) / 2,
    σ² = exp(f log β + (1 - f) log β̃) (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15).
    """
    if kind == "learned":
        xp = get_array_module(told)
        return xp.sqrt(xp.maximum(told, 0))
    if kind == "learned_range":
        low, high = math.log(max(small, SMALLEST)), math.log(max(large, SMALLEST))
        return get_array_module(told).exp(told_logvar(told, low, high) / 2)
    return math.sqrt(large if kind in ("fixed_large", "fixed_large_log") else small)


def told_logvar(told, low, high):
    """log σ² = f log β + (1 - f) log β̃ with f = (told + 1) / 2; low: log β̃, high: log β."""
    return low + (told + 1) / 2 * (high - low)


class HybridLossCache(NamedTuple):
    model: Any
    model_cache: Any
    mse: Any
    root: Any  # of the weights of min_snr; None without
    divergence: Any
    half_range: Any  # (log β - log β̃) / 2
    weight: float  # λ T


def held_spread(error, posterior):
    """E[(z_prev - μ_θ)²] under q(z_prev | z_t, z_0), like the error: β̃ + (the error of the model's mean)², at t = 0
    without β̃. error: the model's output without its target. No gradient is taken of it.
    """
    mean_scale, low, _, later = posterior
    return later * get_array_module(low).exp(low) + (mean_scale * error) ** 2


def hybrid_loss(model, z, noise, t, levels, posterior, context, prediction="epsilon", min_snr=None, steps=1000):
    """L_hybrid = L_simple + λ L_vlb of a model with 2 c output channels -> (L_hybrid, L_vlb), cache.

    (Nichol & Dhariwal 2021, section 3.1, equation 16, λ = 0.001.) L_simple is loss.denoising_loss of the first half of
    the channels. L_vlb is T times KL(q(z_prev | z_t, z_0) ‖ p(z_prev | z_t)) at t > 0, and at t = 0 the continuous
    Gaussian's -log p(z_0 | z_1), a density: latents have no bins to sum over. It is in nats, a mean over elements. Its
    gradient reaches only the second half of the channels, the variance, for the mean is held.

    posterior: NoiseSchedule.posterior(t) on the device; steps: T; the other arguments are those of denoising_loss.
    """
    c = z.shape[-1]
    output, model_cache = model.forward(add_noise(z, noise, *levels), t, context)
    if output.shape[-1] != 2 * c:
        raise ValueError(f"model: expected an output of {2 * c} channels for latents of {c}, got {output.shape[-1]}")
    told, target = output[..., :c], target_of(prediction, z, noise, levels)
    simple, mse_cache, root = weighted_mse(told, target, levels, prediction, min_snr)
    _, low, high, later = posterior
    logvar = told_logvar(output[..., c:], low, high)
    crossed, divergence = run(gaussian_cross_entropy, logvar, held_spread(told - target, posterior))
    entropy = later * (math.log(2 * math.pi) + 1 + low) / 2  # of q, which no weight changes
    vlb, weight = steps * (crossed - entropy.mean()), VLB_WEIGHT * steps
    cache = HybridLossCache(model, model_cache, mse_cache, root, divergence, (high - low) / 2, weight)
    return (simple + VLB_WEIGHT * vlb, vlb), cache


def hybrid_loss_backward(dy, cache):
    """dy a number, of L_hybrid. Adds into the model's gradients; -> dcontext (N, L, D)."""
    dtold, _ = cache.mse.backward(dy)
    if cache.root is not None:
        dtold = cache.root * dtold
    dlogvar, _ = cache.divergence.backward(dy * cache.weight)
    doutput = get_array_module(dtold).concatenate([dtold, cache.half_range * dlogvar], axis=-1)
    _, _, dcontext = cache.model.backward(doutput, cache.model_cache)
    return dcontext
