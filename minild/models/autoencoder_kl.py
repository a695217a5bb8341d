"""AutoencoderKL: the perceptual autoencoder with KL regularisation (latent diffusion paper, section 3.1)."""

from typing import Any, NamedTuple

import numpy as np

from minild.backend import device_of, get_array_module, to_device
from minild.models.autoencoder import Autoencoder
from minild.random import standard_normal

LOGVAR_RANGE = (-30.0, 20.0)


class DiagonalGaussian(NamedTuple):
    """The posterior q(z | x) = N(mean, exp(logvar)), each (N, h, w, c)."""

    mean: Any
    logvar: Any

    def sample(self, rng):
        """z = mean + exp(logvar / 2) · ε, ε drawn on the host from `rng`: a numpy Generator, or a list of one each."""
        generators = [rng] * len(self.mean) if isinstance(rng, np.random.Generator) else rng
        noise = to_device(standard_normal(generators, self.mean.shape[1:], self.mean.dtype), device_of(self.mean))
        return reparameterize(self, noise)[0]


class ReparameterizeCache(NamedTuple):
    deviation: Any
    noise: Any


def reparameterize(posterior, noise):
    """z = mean + exp(logvar / 2) · noise (Kingma & Welling 2013, section 2.4)."""
    deviation = get_array_module(noise).exp(0.5 * posterior.logvar)
    return posterior.mean + deviation * noise, ReparameterizeCache(deviation, noise)


def reparameterize_backward(dz, cache):
    """dmean = dz, dlogvar = dz · noise · exp(logvar / 2) / 2."""
    return dz, dz * cache.noise * cache.deviation * 0.5


class AutoencoderKL(Autoencoder):
    """Picture x (N, H, W, 3) in [-1, 1] <-> latent z (N, H/f, W/f, c), f = 2^(blocks - 1)."""

    defaults = Autoencoder.defaults | {"latent_channels": 4, "use_quant_conv": True, "use_post_quant_conv": True}
    unused = frozenset({"latents_mean", "latents_std", "shift_factor"})  # of the latents in Stable Diffusion XL and 3

    def __init__(self, config):
        c = config["latent_channels"]
        super().__init__(config, encoded=2 * c, quantized=2 * c, latent=c)

    def _moments(self, moments):
        c = self.config["latent_channels"]
        return DiagonalGaussian(moments[..., :c], moments[..., c:].clip(*LOGVAR_RANGE))

    def encode(self, x):
        """x (N, H, W, 3) in [-1, 1] -> the posterior over z (not yet multiplied by scaling_factor)."""
        return self._moments(self.quant_conv(self.encoder(x)))

    def mean_latent(self, x):
        """x (N, H, W, 3) in [-1, 1] -> z without its noise, the posterior's mean."""
        return self.encode(x).mean

    def decode(self, z):
        """z (N, h, w, c), divided by scaling_factor -> x (N, H, W, 3), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x, noise):
        """x (N, H, W, 3), noise (N, h, w, c) -> (reconstruction, posterior) of z = mean + exp(logvar / 2) · noise."""
        h, encoder = self.encoder.forward(x)
        moments, quant = self.quant_conv.forward(h)
        posterior = self._moments(moments)
        z, sample = reparameterize(posterior, noise)
        h, post_quant = self.post_quant_conv.forward(z)
        y, decoder = self.decoder.forward(h)
        return (y, posterior), (encoder, quant, moments, sample, post_quant, decoder)

    def backward(self, dy, cache):
        """dy = (dreconstruction like x, dposterior = (dmean, dlogvar) of the KL term) -> dx (N, H, W, 3)."""
        dreconstruction, dposterior = dy
        encoder, quant, moments, sample, post_quant, decoder = cache
        xp = get_array_module(dreconstruction)
        dz = self.post_quant_conv.backward(self.decoder.backward(dreconstruction, decoder), post_quant)
        dmean, dlogvar = reparameterize_backward(dz, sample)
        dmean, dlogvar = dmean + dposterior[0], dlogvar + dposterior[1]
        logvar = moments[..., self.config["latent_channels"] :]
        low, high = LOGVAR_RANGE
        dlogvar = dlogvar * ((logvar > low) & (logvar < high))  # a clipped logvar gets no gradient
        dmoments = xp.concatenate([dmean, dlogvar], axis=-1)
        return self.encoder.backward(self.quant_conv.backward(dmoments, quant), encoder)
