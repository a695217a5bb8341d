"""What the autoencoders have in common (latent diffusion paper, section 3.1)."""

from minild.errors import UserError
from minild.models.model import Model, require_block_types, require_divisor
from minild.nn.autoencoder_blocks import Decoder, Encoder
from minild.nn.layers import IDENTITY, Conv2d


class Autoencoder(Model):
    """Encoder, quant_conv, (the latent,) post_quant_conv, decoder; the two are 1 x 1 convolutions, or left out."""

    defaults = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [64],
        "layers_per_block": 1,
        "norm_num_groups": 32,
        "sample_size": 32,
        "scaling_factor": 0.18215,
        "mid_block_add_attention": True,
    }
    only = {"act_fn": ["silu", "swish"], "quantization_config": [None]}
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
        require_divisor(cls.__name__, "norm_num_groups", complete["norm_num_groups"], channels)
        if not complete["scaling_factor"]:
            raise UserError(f"{cls.__name__}: scaling_factor = 0 leaves nothing of a latent")
        return complete

    @classmethod
    def latent_width(cls, config):
        """c, the channels of z, which a diffusion model sees; of a complete config."""
        return config["latent_channels"]

    def __init__(self, config, encoded, quantized, latent):
        """Channels after the encoder, after quant_conv, and of the latent that post_quant_conv is given."""
        super().__init__(config)
        channels, c = list(config["block_out_channels"]), config["latent_channels"]
        layers, groups = config["layers_per_block"], config["norm_num_groups"]
        attention = config["mid_block_add_attention"]
        depth = {"layers": layers, "groups": groups, "mid_attention": attention}
        self.encoder = Encoder(config["in_channels"], encoded, channels, **depth)
        self.decoder = Decoder(c, config["out_channels"], channels, **depth)
        self.quant_conv = self.post_quant_conv = IDENTITY
        if config.get("use_quant_conv", True):
            self.quant_conv = Conv2d(encoded, quantized, kernel_size=1, padding=0)
        if config.get("use_post_quant_conv", True):
            self.post_quant_conv = Conv2d(latent, c, kernel_size=1, padding=0)
        self.downsampling = 2 ** (len(channels) - 1)

    def last_weight_gradient(self, dreconstruction, cache):
        """The gradient of the decoder's last convolution's weight alone, from the `cache` of a forward.

        It is what the adversarial loss's adaptive weight is made of. Nothing is added to any .grad.
        """
        *_, decoder = cache
        *_, last = decoder
        return last.backward(dreconstruction)[1]
