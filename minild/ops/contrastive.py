"""The contrastive loss of pictures and their captions (Radford et al. 2021, arXiv 2103.00020, figure 3)."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.loss import cross_entropy, cross_entropy_backward
from minild.ops.norm import unit_norm, unit_norm_backward
from minild.ops.validate import require_like, require_rank, require_shape

TINY = 1e-30  # beside the length of an embedding, so that nothing is divided by 0


class ContrastiveCache(NamedTuple):
    logits: Any  # N,N: a row a picture, a column a caption
    images: Any  # the cache of each normalisation, and what it gave
    texts: Any
    unit_images: Any
    unit_texts: Any
    scale: Any  # exp(logit_scale)
    rows: Any  # the caches of both cross-entropies
    columns: Any


def require_contrastive(images, texts, logit_scale):
    """ValueError unless `texts` is an array like `images`, of rank two, and `logit_scale` a number like it."""
    require_rank("images", images, 2, "(N, D)")
    require_shape("texts", texts, images.shape)
    require_like("texts", texts, "images", images)
    require_shape("logit_scale", logit_scale, ())


def contrastive(images, texts, logit_scale):
    """Mean of two cross-entropies, in nats: of a picture's caption among all N, and of a caption's picture.

    logits = exp(logit_scale) · cos(image, text); image i and text i belong together. images, texts (N, D) of any
    length, logit_scale () -> a scalar on the device. logit_scale is the logarithm of one over the temperature.
    """
    require_contrastive(images, texts, logit_scale)
    xp = get_array_module(images)
    (unit_images, images), (unit_texts, texts) = unit_norm(images, TINY), unit_norm(texts, TINY)
    scale, labels = xp.exp(logit_scale), xp.arange(len(unit_images))
    logits = scale * (unit_images @ unit_texts.T)
    (of_rows, rows), (of_columns, columns) = cross_entropy(logits, labels), cross_entropy(logits.T, labels)
    cache = ContrastiveCache(logits, images, texts, unit_images, unit_texts, scale, rows, columns)
    return (of_rows + of_columns) / 2, cache


def contrastive_backward(dy, cache):
    """-> dimages (N, D), dtexts (N, D), dlogit_scale (); logits are proportional to exp(logit_scale)."""
    logits, images, texts, unit_images, unit_texts, scale, rows, columns = cache
    dlogits = cross_entropy_backward(dy / 2, rows) + cross_entropy_backward(dy / 2, columns).T
    dcosines = scale * dlogits
    dimages = unit_norm_backward(dcosines @ unit_texts, images)
    dtexts = unit_norm_backward(dcosines.T @ unit_images, texts)
    return dimages, dtexts, get_array_module(logits).asarray((dlogits * logits).sum())
