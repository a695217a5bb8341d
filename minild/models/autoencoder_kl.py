"""AutoencoderKL: the perceptual autoencoder with KL regularisation (latent diffusion paper, section 3.1)."""

from typing import Any, NamedTuple

import numpy as np

from minild.backend import device_of, get_array_module, standard_normal, to_device
from minild.models.model import Model, require_block_types
from minild.nn.autoencoder_blocks import Decoder, Encoder
from minild.nn.layers import Conv2d

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


class AutoencoderKL(Model):
    """Picture x (N, H, W, 3) in [-1, 1] <-> latent z (N, H/f, W/f, c), f = 2^(blocks - 1)."""

    defaults = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [64],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "sample_size": 32,
        "scaling_factor": 0.18215,
        "mid_block_add_attention": True,
    }
    only = {
        "act_fn": ["silu", "swish"],
        "shift_factor": [None],
        "latents_mean": [None],
        "latents_std": [None],
        "use_quant_conv": [True],
        "use_post_quant_conv": [True],
    }
    inert = frozenset({"force_upcast"})
    old_keys = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}

    @classmethod
    def complete_config(cls, config):
        """As of every Model; the lists of block types may be left out, for there is one type."""
        channels = config.get("block_out_channels", cls.defaults["block_out_channels"])
        types = {field: cls.defaults[field] * len(channels) for field in ("down_block_types", "up_block_types")}
        complete = super().complete_config(types | config)
        for field in types:
            require_block_types(cls.__name__, complete, field, cls.defaults[field])
        return complete

    def __init__(self, config):
        super().__init__(config)
        channels, c = list(config["block_out_channels"]), config["latent_channels"]
        layers, groups = config["layers_per_block"], config["norm_num_groups"]
        attention = config["mid_block_add_attention"]
        self.encoder = Encoder(config["in_channels"], 2 * c, channels, layers, groups, attention)
        self.decoder = Decoder(c, config["out_channels"], channels, layers, groups, attention)
        self.quant_conv = Conv2d(2 * c, 2 * c, kernel_size=1, padding=0)
        self.post_quant_conv = Conv2d(c, c, kernel_size=1, padding=0)
        self.downsampling = 2 ** (len(channels) - 1)

    def _moments(self, moments):
        c = self.config["latent_channels"]
        return DiagonalGaussian(moments[..., :c], moments[..., c:].clip(*LOGVAR_RANGE))

    def encode(self, x):
        """x (N, H, W, 3) in [-1, 1] -> the posterior over z (not yet multiplied by scaling_factor)."""
        return self._moments(self.quant_conv(self.encoder(x)))

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

    def backward(self, dy, dposterior, cache):
        """dy like the picture, dposterior = (dmean, dlogvar) of the KL term -> dx."""
        encoder, quant, moments, sample, post_quant, decoder = cache
        xp = get_array_module(dy)
        dz = self.post_quant_conv.backward(self.decoder.backward(dy, decoder), post_quant)
        dmean, dlogvar = reparameterize_backward(dz, sample)
        dmean, dlogvar = dmean + dposterior[0], dlogvar + dposterior[1]
        logvar = moments[..., self.config["latent_channels"] :]
        low, high = LOGVAR_RANGE
        dlogvar = dlogvar * ((logvar > low) & (logvar < high))  # a clipped logvar gets no gradient
        dmoments = xp.concatenate([dmean, dlogvar], axis=-1)
        return self.encoder.backward(self.quant_conv.backward(dmoments, quant), encoder)
