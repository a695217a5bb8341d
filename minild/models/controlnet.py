"""ControlNetModel: a picture, of outlines say, that leads a U-Net in space (Zhang et al. 2023, arXiv 2302.05543).

It begins as a copy of the U-Net's way down to the middle, and looks at a picture beside the latents. What it makes of
each feature map passes a 1 x 1 convolution and is added to the U-Net's own: a residual for each skip, and one for the
middle. These convolutions begin as zero, so that at first the U-Net draws as it did.
"""

import itertools
import math

from minild.errors import UserError
from minild.models.unet_encoder import UNetEncoder
from minild.nn.layers import SILU, Conv2d
from minild.nn.module import Module
from minild.ops.validate import require_rank, require_shape

WIDTHS = (16, 32, 96, 256)  # the reference's, of an f of 8
COPIED = ("conv_in", "time_embedding", "class_embedding", "down_blocks", "mid_block")  # from a U-Net


class ControlNetConditioningEmbedding(Module):
    """Features of a picture, of which each width after the first halves the sides: SiLU after all but the last layer.

    (N, H, W, in_channels) -> (N, H/f, W/f, out_channels), f = 2^(len(widths) - 1). The last layer begins as zero.
    """

    def __init__(self, in_channels, widths, out_channels):
        self.conv_in = Conv2d(in_channels, widths[0])
        self.blocks = []
        for width, wider in itertools.pairwise(widths):
            self.blocks += [Conv2d(width, width), Conv2d(width, wider, stride=2)]
        self.conv_out = Conv2d(widths[-1], out_channels, init=0.0)

    def forward(self, x):
        """x (N, H, W, in_channels) -> y (N, H/f, W/f, out_channels)."""
        caches = []
        for conv in (self.conv_in, *self.blocks):
            x, cache = conv.forward(x)
            x, act = SILU.forward(x)
            caches.append((cache, act))
        y, last = self.conv_out.forward(x)
        return y, (caches, last)

    def backward(self, dy, cache):
        """dy like y -> dx like x."""
        caches, last = cache
        dx = self.conv_out.backward(dy, last)
        for conv, (cache, act) in zip(reversed((self.conv_in, *self.blocks)), reversed(caches)):
            dx = conv.backward(SILU.backward(dx, act), cache)
        return dx


class ControlNetModel(UNetEncoder):
    """x (N, h, w, c), timesteps t (N,), context (N, L, D), control (N, f h, f w, 3) -> the residuals of a U-Net."""

    defaults = {
        **UNetEncoder.defaults,
        "conditioning_channels": 3,
        "conditioning_embedding_out_channels": list(WIDTHS),
    }
    only = UNetEncoder.only | {
        "controlnet_conditioning_channel_order": ["rgb"],
        "global_pool_conditions": [False],
        "encoder_hid_dim": [None],
        "encoder_hid_dim_type": [None],
    }

    @classmethod
    def complete_config(cls, config):
        """See UNetEncoder.complete_config; all levels are of one depth, as the reference has it."""
        complete = super().complete_config(config)
        cls._require_number(complete, "layers_per_block")
        cls._require_whole(complete, "conditioning_channels")
        widths = complete["conditioning_embedding_out_channels"]
        if not isinstance(widths, (list, tuple)) or not widths or not all(type(w) is int and w >= 1 for w in widths):
            raise cls._unsupported(complete, "conditioning_embedding_out_channels", "a list of widths")
        return complete

    @classmethod
    def from_unet(cls, unet, f=8, seed=0):
        """One for a UNet2DConditionModel, with copies of its weights, that looks at pictures f times as large.

        f: a power of two. The layers that the U-Net does not have are drawn from `seed`, or zero. UserError for a U-Net
        that no ControlNet goes with.
        """
        if unet.config["encoder_hid_dim_type"] or unet.concatenates:
            raise UserError("a ControlNet is for a U-Net that takes its context and its classes as they are")
        if unet.config["time_embedding_dim"] not in (None, 4 * unet.config["block_out_channels"][0]):
            raise UserError("a ControlNet is for a U-Net whose time_embedding_dim is that of its config's widths")
        halvings = int(math.log2(f)) if f >= 1 else -1
        if f != 2**halvings:
            raise UserError(f"a ControlNet looks at pictures 1, 2, 4, 8, ... times as large as latents, not {f} times")
        widths = [*WIDTHS, *WIDTHS[-1:] * halvings][: halvings + 1]
        shared = {field: unet.config[field] for field in UNetEncoder.defaults}
        config = cls.complete_config(shared | {"conditioning_embedding_out_channels": widths})
        model = cls.from_config(config, seed).astype(unet.conv_out.bias.data.dtype).to(unet.device)
        own = dict(model.named_parameters())
        for name, parameter in unet.named_parameters():
            if name.partition(".")[0] in COPIED:
                own[name].data = parameter.data.copy()
        return model

    def __init__(self, config):
        super().__init__(config)
        widths = config["block_out_channels"]
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            config["conditioning_channels"], config["conditioning_embedding_out_channels"], widths[0]
        )
        self.controlnet_down_blocks = [_zero_convolution(width) for width in self.skip_channels()]
        self.controlnet_mid_block = _zero_convolution(widths[-1])

    @property
    def f(self):
        """How many times as large as the latents the picture is, a side."""
        return 2 ** (len(self.config["conditioning_embedding_out_channels"]) - 1)

    def require(self, x, t, context, control, class_labels=None):
        """ValueError unless the arguments of `forward` fit each other and the config."""
        super().require(x, t, context, class_labels)
        require_rank("control", control, 4, "(N, f h, f w, 3)")
        N, h, w, _ = x.shape
        require_shape("control", control, (N, self.f * h, self.f * w, self.config["conditioning_channels"]))
        self._require_floats(control=control)

    def forward(self, x, t, context, control, class_labels=None):
        """x (N, h, w, in_channels), t (N,), context (N, L, D), control (N, f h, f w, 3) in [0, 1] -> residuals.

        A tuple of arrays, as UNet2DConditionModel.forward takes it: one for each skip, and one for the middle. The
        other arguments are the U-Net's. Raises ValueError for a shape that does not fit.
        """
        self.require(x, t, context, control, class_labels)
        temb, embeddings = self._embed(t, class_labels, x)
        h, conv_in = self.conv_in.forward(x)
        seen, embedding = self.controlnet_cond_embedding.forward(control)
        (h, skips), down = self._down(h + seen, temb, context)
        zeros = [conv.forward(feature) for conv, feature in zip(self._zeros(), [*skips, h])]
        return tuple(y for y, _ in zeros), (embeddings, conv_in, embedding, down, [cache for _, cache in zeros])

    def backward(self, dy, cache):
        """dy like the residuals -> dx, dt (N,), dcontext (None where nothing attends to it), dcontrol.

        And dclass_labels after them, where the labels are numbers or vectors rather than entries of a table.
        """
        embeddings, conv_in, embedding, down, zeros = cache
        *dskips, dh = [conv.backward(d, zero) for conv, d, zero in zip(self._zeros(), dy, zeros)]
        dh, dtemb, dcontext = self._down_backward(dh, dskips, down)
        dcontrol = self.controlnet_cond_embedding.backward(dh, embedding)
        dx = self.conv_in.backward(dh, conv_in)
        dt, dlabels = self._embed_backward(dtemb, embeddings)
        return (dx, dt, dcontext, dcontrol) if dlabels is None else (dx, dt, dcontext, dcontrol, dlabels)

    def _zeros(self):
        """The zero convolutions, in the order of the residuals."""
        return [*self.controlnet_down_blocks, self.controlnet_mid_block]


def _zero_convolution(width):
    return Conv2d(width, width, kernel_size=1, padding=0, init=0.0)
