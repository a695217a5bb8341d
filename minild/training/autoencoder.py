"""Stage one: the autoencoder learns to rebuild pictures; here from latents that stay near N(0, 1). See codebook.py."""

import contextlib
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from minild.backend import get_array_module, to_device, to_host
from minild.data.pictures import to_signed
from minild.engine import run
from minild.engine.cores import side_by_side
from minild.models import VQModel
from minild.ops import gaussian_kl, l1, mse

# Late in a training the squared error is so small beside the absolute one that it would count for nothing; with this
# weight the autoencoder of the shapes rebuilt 1.7 dB better after the same three minutes.
SQUARED = 4.0


def prepare(autoencoder, logvar=-6.0):
    """Change fresh weights into ones that train several times faster.

    Weights √3 times as large have the variance 1 / fan_in, so that signals keep their size from layer to layer (LeCun
    et al. 1998, Efficient BackProp, section 4.6). And an AutoencoderKL's latents begin with almost no noise,
    exp(logvar / 2): it would be as large as what they have to say.
    """
    for parameter in autoencoder.parameters():
        if parameter.layout:  # a matrix or a convolution
            parameter.data *= 3**0.5
    if not isinstance(autoencoder, VQModel):
        autoencoder.quant_conv.bias.data[autoencoder.config["latent_channels"] :] = logvar


class Comparison(NamedTuple):
    absolute: Any
    squared: Any
    perceptual: Any  # None without


class RebuildingCache(NamedTuple):
    model: Any
    autoencoder: Any  # of its forward
    rebuilt: Any  # x̂
    x: Any
    comparison: Comparison
    kl: Any = None


class RebuildingObjective:
    """loss = |x̂ - x| + SQUARED (x̂ - x)², each a mean over its elements, and what a subclass adds for its latents.

    pictures: (N, H, W, 3) uint8. With `perceptual`, a models.LPIPS, its distance between x̂ and x is added,
    perceptual_weight times the batch's mean.
    """

    tracker = None  # codebook.CodebookTracker: what is kept from step to step

    def __init__(self, pictures, perceptual=None, perceptual_weight=1.0):
        self.pictures, self.perceptual, self.perceptual_weight = pictures, perceptual, perceptual_weight

    def rows(self, rng, size):
        """Which pictures make the next batch: their numbers (size,)."""
        return rng.integers(len(self.pictures), size=size)

    def batch(self, rng, size, progress):
        """Random pictures, on the host."""
        return (self.pictures[self.rows(rng, size)],)

    def compare(self, y, x):
        """x̂ and x -> {name: loss} of all that compares them, on the device, and the Comparison."""
        absolute, absolute_cache = run(l1, y, x)
        squared, squared_cache = run(mse, y, x)
        losses = {"loss": absolute + SQUARED * squared, "l1": absolute, "mse": squared}
        distance_cache = None
        if self.perceptual:
            distances, distance_cache = self.perceptual.forward(y, x)
            losses["perceptual"] = distances.mean()
            losses["loss"] = losses["loss"] + self.perceptual_weight * losses["perceptual"]
        return losses, Comparison(absolute_cache, squared_cache, distance_cache)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the autoencoder's gradients."""
        self.backward_from(self.rebuilt_gradient(dloss, cache), dloss, cache)

    def rebuilt_gradient(self, dloss, cache):
        """dx̂ like x̂: dloss times the gradient of all that compares x̂ with x."""
        absolute, squared, perceptual = cache.comparison
        dy = absolute.backward(dloss)[0] + squared.backward(dloss * SQUARED)[0]
        if perceptual:
            N, share = len(dy), dloss * self.perceptual_weight / len(dy)
            dy += self.perceptual.backward(get_array_module(dy).full(N, share, dy.dtype), perceptual)
        return dy

    def after_step(self, autoencoder, losses, rng, progress):
        """What training_steps asks for after the optimiser's step: nothing more."""
        return losses


class AutoencoderObjective(RebuildingObjective):
    """The loss of a RebuildingObjective + kl_weight · KL, a mean over its elements (paper, section 3.1, KL-reg.).

    The published weight, 1e-6 on sums, is kl_weight = 1e-6 · (h w c) / (H W 3) on means. latent_shape: (h, w, c).
    """

    def __init__(self, pictures, latent_shape, kl_weight=1e-4, perceptual=None, perceptual_weight=1.0):
        super().__init__(pictures, perceptual, perceptual_weight)
        self.latent_shape, self.kl_weight = latent_shape, kl_weight

    def batch(self, rng, size, progress):
        """Random pictures and the noise of their latents, on the host."""
        return *super().batch(rng, size, progress), rng.standard_normal((size, *self.latent_shape), dtype=np.float32)

    def forward(self, autoencoder, batch):
        """-> {name: loss} on the device, cache."""
        x, noise = to_device(to_signed(batch[0]), autoencoder.device), to_device(batch[1], autoencoder.device)
        (y, posterior), cache = autoencoder.forward(x, noise)
        losses, comparison = self.compare(y, x)
        kl, kl_cache = run(gaussian_kl, posterior.mean, posterior.logvar)
        losses |= {"loss": losses["loss"] + self.kl_weight * kl, "kl": kl}
        return losses, RebuildingCache(autoencoder, cache, y, x, comparison, kl_cache)

    def backward_from(self, dy, dloss, cache):
        """The rest of backward, from dy = dx̂ on; the KL term's gradient joins it at the posterior."""
        cache.model.backward((dy, cache.kl.backward(dloss * self.kl_weight)), cache.autoencoder)


def encode_pictures(autoencoder, pictures, batch=64, posterior="sample"):
    """The posterior of every picture -> means and deviations, both (N, h, w, c) float32 on the host.

    Where its mode is asked for, posterior="mode", the deviations are 0; so they are of a VQModel's latent, which is not
    yet quantised.
    """

    def encode(start):
        encoded = autoencoder.encode(to_device(to_signed(pictures[start : start + batch]), autoencoder.device))
        if isinstance(autoencoder, VQModel):
            z = to_host(encoded)
            return z, np.zeros_like(z)
        return to_host(encoded.mean), np.exp(0.5 * to_host(encoded.logvar))

    starts = range(0, len(pictures), batch)
    with side_by_side() if autoencoder.device == "cpu" else contextlib.nullcontext(map) as map_on_cores:
        encoded = tqdm(map_on_cores(encode, starts), desc="encode", total=len(starts), unit="batch", delay=1)
        means, deviations = zip(*encoded)
    means, deviations = np.concatenate(means), np.concatenate(deviations)
    return means, np.zeros_like(deviations) if posterior == "mode" else deviations
