"""Stage one: the autoencoder learns to rebuild pictures from latents that stay near N(0, 1)."""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from minild.backend import get_array_module, to_device, to_host
from minild.data.pictures import to_signed
from minild.engine import run
from minild.engine.cores import side_by_side
from minild.ops import gaussian_kl, l1, mse

# Late in a training the squared error is so small beside the absolute one that it would count for nothing; with this
# weight the autoencoder of the shapes rebuilt 1.7 dB better after the same three minutes.
SQUARED = 4.0


def prepare(autoencoder, logvar=-6.0):
    """Change fresh weights into ones that train several times faster.

    Weights √3 times as large have the variance 1 / fan_in, so that signals keep their size from layer to layer (LeCun
    et al. 1998, Efficient BackProp, section 4.6). And the latents begin with almost no noise, exp(logvar / 2): it would
    be as large as what they have to say.
    """
    for parameter in autoencoder.parameters():
        if parameter.layout:  # a matrix or a convolution
            parameter.data *= 3**0.5
    autoencoder.quant_conv.bias.data[autoencoder.config["latent_channels"] :] = logvar


class AutoencoderLossCache(NamedTuple):
    model: Any
    autoencoder: Any
    rebuilt: Any  # x̂
    x: Any
    absolute: Any
    squared: Any
    kl: Any
    perceptual: Any  # None without


class AutoencoderObjective:
    """loss = |x̂ - x| + SQUARED (x̂ - x)² + kl_weight · KL, each a mean over its elements (paper, section 3.1, KL-reg.).

    The published weight, 1e-6 on sums, is kl_weight = 1e-6 · (h w c) / (H W 3) on means. pictures: (N, H, W, 3) uint8.
    With `perceptual`, a models.LPIPS, its distance between x̂ and x is added, perceptual_weight times the batch's mean.
    """

    def __init__(self, pictures, latent_shape, kl_weight=1e-4, perceptual=None, perceptual_weight=1.0):
        self.pictures, self.latent_shape, self.kl_weight = pictures, latent_shape, kl_weight
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight

    def batch(self, rng, size, progress):
        """Random pictures and the noise of their latents, on the host."""
        rows = rng.integers(len(self.pictures), size=size)
        return self.pictures[rows], rng.standard_normal((size, *self.latent_shape), dtype=np.float32)

    def forward(self, autoencoder, batch):
        """-> {name: loss} on the device, cache."""
        x, noise = to_device(to_signed(batch[0]), autoencoder.device), to_device(batch[1], autoencoder.device)
        (y, posterior), cache = autoencoder.forward(x, noise)
        absolute, absolute_cache = run(l1, y, x)
        squared, squared_cache = run(mse, y, x)
        kl, kl_cache = run(gaussian_kl, posterior.mean, posterior.logvar)
        losses = {"loss": absolute + SQUARED * squared + self.kl_weight * kl, "l1": absolute, "mse": squared, "kl": kl}
        distance_cache = None
        if self.perceptual:
            distances, distance_cache = self.perceptual.forward(y, x)
            losses["perceptual"] = distances.mean()
            losses["loss"] = losses["loss"] + self.perceptual_weight * losses["perceptual"]
        caches = absolute_cache, squared_cache, kl_cache, distance_cache
        return losses, AutoencoderLossCache(autoencoder, cache, y, x, *caches)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the autoencoder's gradients."""
        self.backward_from(self.rebuilt_gradient(dloss, cache), dloss, cache)

    def rebuilt_gradient(self, dloss, cache):
        """dx̂ like x̂: dloss times the gradient of all that compares x̂ with x."""
        dy = cache.absolute.backward(dloss)[0] + cache.squared.backward(dloss * SQUARED)[0]
        if cache.perceptual:
            N, share = len(dy), dloss * self.perceptual_weight / len(dy)
            dy += self.perceptual.backward(get_array_module(dy).full(N, share, dy.dtype), cache.perceptual)
        return dy

    def backward_from(self, dy, dloss, cache):
        """The rest of backward, from dy = dx̂ on; the KL term's gradient joins it at the posterior."""
        cache.model.backward((dy, cache.kl.backward(dloss * self.kl_weight)), cache.autoencoder)


def encode_pictures(autoencoder, pictures, batch=64):
    """The posterior of every picture -> means and deviations, both (N, h, w, c) float32 on the host."""

    def encode(start):
        posterior = autoencoder.encode(to_device(to_signed(pictures[start : start + batch]), autoencoder.device))
        return to_host(posterior.mean), np.exp(0.5 * to_host(posterior.logvar))

    starts = range(0, len(pictures), batch)
    with side_by_side() if autoencoder.device == "cpu" else contextlib.nullcontext(map) as map_on_cores:
        means, deviations = zip(*map_on_cores(encode, starts))
    return np.concatenate(means), np.concatenate(deviations)
