"""Losses: scalars on the device, so that none makes the host wait. dy, the loss's own gradient, is a number."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.activation import sigmoid, softmax
from minild.ops.validate import require_integers, require_like, require_shape


class DifferenceCache(NamedTuple):
    difference: Any  # prediction - target


def require_alike(prediction, target):
    """ValueError unless `target` is an array like `prediction`."""
    require_shape("target", target, prediction.shape)
    require_like("target", target, "prediction", prediction)


def mse(prediction, target):
    """Mean over all elements of (prediction - target)²; both of one shape."""
    require_alike(prediction, target)
    difference = prediction - target
    return (difference * difference).mean(), DifferenceCache(difference)


def mse_backward(dy, cache):
    """dprediction = dy · 2 (prediction - target) / count, dtarget its opposite."""
    (difference,) = cache
    dprediction = difference * (dy * 2 / difference.size)
    return dprediction, -dprediction


def l1(prediction, target):
    """Mean over all elements of |prediction - target|; both of one shape."""
    require_alike(prediction, target)
    difference = prediction - target
    return abs(difference).mean(), DifferenceCache(difference)


def l1_backward(dy, cache):
    """dprediction = dy · sign(prediction - target) / count, dtarget its opposite."""
    (difference,) = cache
    dprediction = get_array_module(difference).sign(difference) * (dy / difference.size)
    return dprediction, -dprediction


class LogitsCache(NamedTuple):
    signed: Any  # target · logits
    target: int


def require_target(logits, target):
    """ValueError unless the discriminator's `target` is 1, for real, or -1, for generated."""
    if target not in (1, -1):
        raise ValueError(f"target: expected 1 for real or -1 for generated, got {target!r}")


def hinge(logits, target):
    """Mean over all elements of max(0, 1 - target · logit), target 1 for real and -1 for generated patches.

    (Lim & Ye 2017, arXiv 1705.02894.) Nothing more is asked of a logit that is beyond ±1 on its right side.
    """
    require_target(logits, target)
    signed = target * logits
    return get_array_module(logits).maximum(1 - signed, 0).mean(), LogitsCache(signed, target)


def hinge_backward(dy, cache):
    """dlogits = -dy · target / count where target · logit < 1, else 0."""
    signed, target = cache
    return (signed < 1).astype(signed.dtype) * (-dy * target / signed.size)


def logistic(logits, target):
    """Mean over all elements of log(1 + exp(-target · logit)), in nats: -log of the probability given to the truth.

    target 1 for real and -1 for generated (Goodfellow et al. 2014, arXiv 1406.2661, equation 1), the "vanilla" loss.
    """
    require_target(logits, target)
    xp, signed = get_array_module(logits), target * logits
    # log(1 + exp(-s)) = max(-s, 0) + log(1 + exp(-|s|)), which cannot overflow
    return (xp.maximum(-signed, 0) + xp.log1p(xp.exp(-abs(signed)))).mean(), LogitsCache(signed, target)


def logistic_backward(dy, cache):
    """dlogits = -dy · target · σ(-target · logit) / count."""
    signed, target = cache
    return sigmoid(-signed) * (-dy * target / signed.size)


class GaussianKLCache(NamedTuple):
    mean: Any
    logvar: Any


def require_moments(mean, logvar):
    """ValueError unless `logvar` is an array like `mean`."""
    require_shape("logvar", logvar, mean.shape)
    require_like("logvar", logvar, "mean", mean)


def gaussian_kl(mean, logvar):
    """Mean over the elements of KL(N(mean, exp(logvar)) ‖ N(0, 1)) = (mean² + exp(logvar) - 1 - logvar) / 2, in nats.

    The published code sums over (H, W, C); the mean keeps the weight independent of the picture's size.
    (Kingma & Welling 2013, arXiv 1312.6114, appendix B.)
    """
    require_moments(mean, logvar)
    nats = mean * mean + get_array_module(mean).exp(logvar) - 1 - logvar
    return nats.mean() / 2, GaussianKLCache(mean, logvar)


def gaussian_kl_backward(dy, cache):
    """dmean = dy · mean / count, dlogvar = dy · (exp(logvar) - 1) / (2 count)."""
    mean, logvar = cache
    scale = dy / mean.size
    return mean * scale, (get_array_module(mean).exp(logvar) - 1) * (scale / 2)


class GaussianCrossEntropyCache(NamedTuple):
    spread: Any
    precision: Any  # exp(-logvar)


def require_spread(logvar, spread):
    """ValueError unless `spread` is an array like `logvar`."""
    require_shape("spread", spread, logvar.shape)
    require_like("spread", spread, "logvar", logvar)


def gaussian_cross_entropy(logvar, spread):
    """Mean over the elements of E[-log N(x; μ, exp(logvar))] = (log 2π + logvar + spread exp(-logvar)) / 2, in nats.

    spread: E[(x - μ)²], of whatever x is drawn from. Without that distribution's entropy it is a KL divergence.
    """
    require_spread(logvar, spread)
    precision = get_array_module(logvar).exp(-logvar)
    nats = math.log(2 * math.pi) + logvar + spread * precision
    return nats.mean() / 2, GaussianCrossEntropyCache(spread, precision)


def gaussian_cross_entropy_backward(dy, cache):
    """dlogvar = dy · (1 - spread exp(-logvar)) / (2 count), dspread = dy · exp(-logvar) / (2 count)."""
    spread, precision = cache
    scale = dy / (2 * spread.size)
    return (1 - spread * precision) * scale, precision * scale


class CrossEntropyCache(NamedTuple):
    probabilities: Any
    labels: Any


def cross_entropy(logits, labels):
    """Mean over rows of -log softmax(logits)[label], in nats. logits (N, K), labels (N,) integers."""
    require_shape("labels", labels, (logits.shape[0],))
    require_integers("labels", labels)
    xp = get_array_module(logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_normaliser = xp.log(xp.exp(shifted).sum(axis=-1))
    picked = shifted[xp.arange(len(labels)), labels]
    return (log_normaliser - picked).mean(), CrossEntropyCache(softmax(logits)[0], labels)


def cross_entropy_backward(dy, cache):
    """dlogits = dy · (softmax(logits) - one_hot(label)) / N."""
    probabilities, labels = cache
    dlogits = probabilities.copy()
    dlogits[get_array_module(dlogits).arange(len(labels)), labels] -= 1
    dlogits *= dy / len(labels)
    return dlogits
