"""VQModel: the perceptual autoencoder with vector quantisation (latent diffusion paper, section 3.1)."""

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

    def forward(self, z):
        """z (N, h, w, D) -> (z_q like z, loss)."""
        return run(quantize, z, self.embedding.weight.value)

    def backward(self, dy, cache):
        """dy = (dz_q, dloss) -> dz."""
        dz, dcodebook = cache.backward(dy)
        self.embedding.weight.accumulate(dcodebook)
        return dz


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
        c = config["latent_channels"]
        width = c if config["vq_embed_dim"] is None else config["vq_embed_dim"]
        super().__init__(config, encoded=c, quantized=width, latent=width)
        self.quantize = VectorQuantizer(config["num_vq_embeddings"], width)

    def encode(self, x):
        """x (N, H, W, 3) in [-1, 1] -> z, not yet quantised or multiplied by scaling_factor."""
        return self.quant_conv(self.encoder(x))

    def decode(self, z):
        """z (N, h, w, c), divided by scaling_factor; it is quantised first -> x (N, H, W, 3), about [-1, 1]."""
        z_q, _ = self.quantize(z)
        return self.decoder(self.post_quant_conv(z_q))

    def forward(self, x):
        """x (N, H, W, 3) -> (reconstruction, the quantiser's loss: codebook and commitment)."""
        h, encoder = self.encoder.forward(x)
        z, quant = self.quant_conv.forward(h)
        (z_q, loss), quantizer = self.quantize.forward(z)
        h, post_quant = self.post_quant_conv.forward(z_q)
        y, decoder = self.decoder.forward(h)
        return (y, loss), (encoder, quant, quantizer, post_quant, decoder)

    def backward(self, dy, cache):
        """dy = (dreconstruction like x, dloss a number) -> dx (N, H, W, 3)."""
        dreconstruction, dloss = dy
        encoder, quant, quantizer, post_quant, decoder = cache
        dz_q = self.post_quant_conv.backward(self.decoder.backward(dreconstruction, decoder), post_quant)
        dz = self.quantize.backward((dz_q, dloss), quantizer)
        return self.encoder.backward(self.quant_conv.backward(dz, quant), encoder)
