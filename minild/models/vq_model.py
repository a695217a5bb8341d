"""VQModel: the perceptual autoencoder with vector quantisation (latent diffusion paper, section 3.1)."""

from typing import Any, NamedTuple

from minild.engine import run
from minild.models.autoencoder import Autoencoder
from minild.nn.module import Module, Parameter
from minild.ops.quantize import quantize


class Codebook(Module):
    """K vectors, drawn from U(-1/K, 1/K)."""

    def __init__(self, count, width):
        self.weight = Parameter((count, width), ("uniform", 1 / count))


class VectorQuantizer(Module):
    """z (N, h, w, D) -> (the nearest code of the codebook at each place, the loss: a scalar)."""

    def __init__(self, count, width):
        self.embedding = Codebook(count, width)

    def forward(self, z, beta=0.25):
        """z (N, h, w, D) -> (z_q like z, loss); beta weighs the commitment."""
        return run(quantize, z, self.embedding.weight.value, beta)

    def backward(self, dy, cache):
        """dy = (dz_q, dloss) -> dz."""
        dz, dcodebook = cache.backward(dy)
        self.embedding.weight.accumulate(dcodebook)
        return dz


class VQCache(NamedTuple):
    encoder: Any
    quant: Any
    z: Any  # the latent before quantisation
    quantizer: Any
    post_quant: Any
    decoder: Any


class VQModel(Autoencoder):
    """Picture x (N, H, W, 3) in [-1, 1] <-> latent z (N, H/f, W/f, c), f = 2^(blocks - 1).

    z is the latent before quantisation, on which the diffusion model works; the quantiser counts as the decoder's
    first layer (paper, section 3.1). c is vq_embed_dim, by default latent_channels.
    The reference's VQModel puts β on the loss's other term, the codebook's, "legacy" in its source; here it is on the
    commitment, as published.
    """

    defaults = Autoencoder.defaults | {"latent_channels": 3, "num_vq_embeddings": 256, "vq_embed_dim": None}
    only = Autoencoder.only | {"norm_type": ["group"], "lookup_from_codebook": [False]}

    def __init__(self, config):
        c, width = config["latent_channels"], self.latent_width(config)
        super().__init__(config, encoded=c, quantized=width, latent=width)
        self.quantize = VectorQuantizer(config["num_vq_embeddings"], width)

    @classmethod
    def latent_width(cls, config):
        """c: the codes' width."""
        width = config["vq_embed_dim"]
        return config["latent_channels"] if width is None else width

    def encode(self, x):
        """x (N, H, W, 3) in [-1, 1] -> z, not yet quantised or multiplied by scaling_factor."""
        return self.quant_conv(self.encoder(x))

    def decode(self, z):
        """z (N, h, w, c), divided by scaling_factor; it is quantised first -> x (N, H, W, 3), about [-1, 1]."""
        z_q, _ = self.quantize(z)
        return self.decoder(self.post_quant_conv(z_q))

    def mean_latent(self, x):
        """encode: z has no noise."""
        return self.encode(x)

    def forward(self, x, beta=0.25):
        """x (N, H, W, 3) -> (reconstruction, the quantiser's loss: codebook and beta times the commitment)."""
        h, encoder = self.encoder.forward(x)
        z, quant = self.quant_conv.forward(h)
        (z_q, loss), quantizer = self.quantize.forward(z, beta)
        h, post_quant = self.post_quant_conv.forward(z_q)
        y, decoder = self.decoder.forward(h)
        return (y, loss), VQCache(encoder, quant, z, quantizer, post_quant, decoder)

    def backward(self, dy, cache):
        """dy = (dreconstruction like x, dloss a number) -> dx (N, H, W, 3)."""
        dreconstruction, dloss = dy
        encoder, quant, _, quantizer, post_quant, decoder = cache
        dz_q = self.post_quant_conv.backward(self.decoder.backward(dreconstruction, decoder), post_quant)
        dz = self.quantize.backward((dz_q, dloss), quantizer)
        return self.encoder.backward(self.quant_conv.backward(dz, quant), encoder)
