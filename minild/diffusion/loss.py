"""The losses of latent diffusion: of ε, and of whatever else a model predicts, weighted or not."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
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


def target_of(prediction, z, noise, levels):
    """What a model of that prediction_type should say of z_t = √ᾱ z + √(1 - ᾱ) ε -> like z.

    "epsilon": ε; "sample": z; "v_prediction": v = √ᾱ ε - √(1 - ᾱ) z (Salimans & Ho 2022, arXiv 2202.00512, appendix D).
    "flow_prediction": v = ε - z, where the levels are 1 - t and t (diffusion.flow).
    """
    signal, noise_level = levels
    if prediction == "flow_prediction":
        return noise - z
    if prediction == "v_prediction":
        return signal * noise - noise_level * z
    return {"epsilon": noise, "sample": z}[prediction]


def min_snr_weights(prediction, levels, gamma):
    """The weight of each item's loss, like the levels (Hang et al. 2023, arXiv 2303.09556, section 3.4).

    With SNR = ᾱ / (1 - ᾱ): min(SNR, γ) for a model of z_0, min(SNR, γ) / SNR = γ / max(SNR, γ) for one of ε, and
    min(SNR, γ) / (SNR + 1) for one of v. All three say the same of ẑ_0: no timestep's error counts more than γ times.
    So does, of a flow, with SNR = ((1 - t) / t)² and ẑ_0 = z_t - t v, t² min(SNR, γ).
    """
    signal, noise_level = levels
    xp, snr = get_array_module(signal), (signal / noise_level) ** 2
    if prediction == "epsilon":
        return gamma / xp.maximum(snr, gamma)
    if prediction == "flow_prediction":
        return xp.minimum(snr, gamma) * noise_level**2
    return xp.minimum(snr, gamma) / (snr + 1 if prediction == "v_prediction" else 1)


def weighted_mse(output, target, levels, prediction, min_snr):
    """The mean of w (output - target)², w of denoising_loss -> it, the call of mse, and √w or None: where it is not
    None, the gradient that the call gives is to be multiplied by it.
    """
    root = None
    if min_snr is not None:
        root = get_array_module(output).sqrt(min_snr_weights(prediction, levels, min_snr)).astype(output.dtype)
        output, target = root * output, root * target
    return *run(mse, output, target), root


class DenoisingLossCache(NamedTuple):
    model: Any
    model_cache: Any
    mse: Any
    root: Any  # of the weights; None without


def denoising_loss(model, z, noise, t, levels, context, prediction="epsilon", min_snr=None):
    """L = w ‖target - model(z_t, t, τ_θ(y))‖², the mean over all elements; target_of says which target.

    w is 1 or, with min_snr = γ, min_snr_weights. The other arguments are those of epsilon_loss, which this is where
    neither is given -> scalar, cache.
    """
    output, model_cache = model.forward(add_noise(z, noise, *levels), t, context)
    target = target_of(prediction, z, noise, levels)
    loss, mse_cache, root = weighted_mse(output, target, levels, prediction, min_snr)
    return loss, DenoisingLossCache(model, model_cache, mse_cache, root)


def denoising_loss_backward(dy, cache):
    """dy a number. Adds into the model's gradients; -> dcontext (N, L, D)."""
    doutput, _ = cache.mse.backward(dy)
    if cache.root is not None:
        doutput = cache.root * doutput
    _, _, dcontext = cache.model.backward(doutput, cache.model_cache)
    return dcontext
