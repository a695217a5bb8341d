"""UNet2DConditionModel: the time-conditional U-Net with cross-attention.

(Latent diffusion paper, arXiv 2112.10752, sections 3.2 and 3.3.)
"""

from minild.models.model import require_block_types
from minild.models.unet_encoder import UNetEncoder, per_level
from minild.nn.layers import Conv2d, GroupNorm
from minild.nn.module import add_gradients
from minild.nn.unet_blocks import UP_BLOCKS
from minild.ops.validate import require_shape

CONTEXT_PROJECTIONS = (None, "text_proj", "image_proj")


def _is_size(value):
    """Whether it is a side, two sides, or None."""
    sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
    return value is None or all(type(side) is int and side >= 1 for side in sides)


class UNet2DConditionModel(UNetEncoder):
    """ε_θ(z_t, t, τ_θ(y)): x (N, h, w, c), timesteps t (N,), context (N, L, D) -> (N, h, w, out_channels).

    Where the config says so it takes class labels too, and a context that it projects itself: see nn.embeddings.
    in_channels may be more than out_channels: what an inpainting model is given beside the latents, say. A ControlNet
    leads it by residuals (models.controlnet).
    """

    defaults = {
        "sample_size": None,
        **UNetEncoder.defaults,
        "out_channels": 4,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "time_embedding_dim": None,
        "class_embeddings_concat": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
    }
    only = UNetEncoder.only | {
        "center_input_sample": [False, None],
        "dual_cross_attention": [False, None],
        "time_embedding_type": ["positional"],
        "conv_in_kernel": [3],
        "conv_out_kernel": [3],
        "attention_type": ["default", None],
        "reverse_transformer_layers_per_block": [None, 1],
        "time_embedding_act_fn": [None],
        "timestep_post_act": [None],
        "time_cond_proj_dim": [None],
    }
    inert = UNetEncoder.inert | {
        "dropout",
        "resnet_skip_time_act",
        "resnet_out_scale_factor",
        "mid_block_only_cross_attention",
        "cross_attention_norm",
    }
    mid_blocks = ("UNetMidBlock2DCrossAttn", None)
    class_embeddings = (*UNetEncoder.class_embeddings, "simple_projection")

    @classmethod
    def complete_config(cls, config):
        """See UNetEncoder.complete_config; a context that is projected has a width."""
        complete = super().complete_config(config)
        require_block_types(cls.__name__, complete, "up_block_types", UP_BLOCKS)
        if not _is_size(complete["sample_size"]):
            raise cls._unsupported(complete, "sample_size", "a number of 1 or more, two of them, or null")
        complete["class_embeddings_concat"] = bool(complete["class_embeddings_concat"])
        if complete["encoder_hid_dim_type"] is None and complete["encoder_hid_dim"] is not None:
            complete["encoder_hid_dim_type"] = CONTEXT_PROJECTIONS[1]  # as the reference has it
        cls._require_one_of(complete, "encoder_hid_dim_type", CONTEXT_PROJECTIONS)
        if complete["encoder_hid_dim_type"]:
            cls._require_whole(complete, "encoder_hid_dim")
        return complete

    def __init__(self, config):
        super().__init__(config)
        channels, heads = list(config["block_out_channels"]), per_level(config, "attention_head_dim")
        layers, last = per_level(config, "layers_per_block"), len(config["block_out_channels"]) - 1
        only_cross, skips = per_level(config, "only_cross_attention"), self.skip_channels()
        self.up_blocks, width = [], channels[-1]
        for i, kind in enumerate(config["up_block_types"]):
            mine = [skips.pop() for _ in range(layers[last - i] + 1)]
            out = channels[last - i]
            level = {"heads": heads[last - i], "only_cross": only_cross[last - i], **self._everywhere}
            block = UP_BLOCKS[kind](width, mine, out, upsample=i < last, **level)
            self.up_blocks.append(block)
            width = out
        self.conv_norm_out = GroupNorm(config["norm_num_groups"], channels[0], config["norm_eps"], silu=True)
        self.conv_out = Conv2d(channels[0], config["out_channels"], init=0.0)

    def forward(self, x, t, context, class_labels=None, residuals=None):
        """x (N, h, w, in_channels), t (N,) numbers from 0 to T - 1, context (N, L, D) -> (N, h, w, out_channels).

        y is what the model predicts. context is (N, L, encoder_hid_dim), or (N, encoder_hid_dim) of "image_proj", where
        the config names one; class_labels are as nn.embeddings.class_embedding has them, labels of a table 0 or more
        and less than num_class_embeds. residuals are what a ControlNet adds: an array for each skip, in the order in
        which the way down leaves them, and one for the middle.
        Any h and w will do: each level is half of the one above, rounded up, and on the way back as large as its skips.
        Raises ValueError for a shape that does not fit.
        """
        self.require(x, t, context, class_labels)
        temb, embeddings = self._embed(t, class_labels, x)
        projection = None
        if self.encoder_hid_proj:
            context, projection = self.encoder_hid_proj.forward(context)
        h, conv_in = self.conv_in.forward(x)
        (h, skips), down = self._down(h, temb, context)
        if residuals is not None:
            require_residuals(residuals, [*skips, h])
            *skips, h = (feature + residual for feature, residual in zip([*skips, h], residuals))
        ups = []
        for block in self.up_blocks:
            count = len(block.resnets)
            mine, skips = skips[-count:], skips[:-count]
            size = skips[-1].shape[1:3] if skips else None  # of the next block's skips
            h, cache = block.forward(h, mine, temb, context, size)
            ups.append(cache)
        h, norm = self.conv_norm_out.forward(h)
        y, conv_out = self.conv_out.forward(h)
        return y, (embeddings, projection, conv_in, down, ups, norm, conv_out, residuals is not None)

    def backward(self, dy, cache):
        """dy like y -> dx, dt (N,), dcontext like the context, or None where nothing attends to it.

        And dclass_labels after them, where the labels are numbers or vectors rather than entries of a table; and last,
        where residuals were given, a tuple of theirs.
        """
        embeddings, projection, conv_in, down, *_, controlled = cache
        dresiduals, dtemb, dcontext = self.up_backward(dy, cache)
        *dskips, dh = dresiduals
        dh, d, dc = self._down_backward(dh, dskips, down)
        dtemb, dcontext = add_gradients(dtemb, d), add_gradients(dcontext, dc)
        dx = self.conv_in.backward(dh, conv_in)
        if self.encoder_hid_proj and dcontext is not None:
            dcontext = self.encoder_hid_proj.backward(dcontext, projection)
        dt, dlabels = self._embed_backward(dtemb, embeddings)
        more = [] if dlabels is None else [dlabels]
        return (dx, dt, dcontext, *more, *([dresiduals] if controlled else []))

    def up_backward(self, dy, cache):
        """The first half of `backward`, all that a ControlNet beside a frozen U-Net is trained by.

        dy like y -> dresiduals, a tuple like `forward` takes; dtemb and dcontext of the way up.
        """
        *_, ups, norm, conv_out, _ = cache
        dh = self.conv_out.backward(dy, conv_out)
        dh = self.conv_norm_out.backward(dh, norm)
        dskips = []  # of the skips in their own order, filled from the front as the up blocks go back
        dtemb = dcontext = None
        for block, up in zip(reversed(self.up_blocks), reversed(ups)):
            dh, mine, d, dc = block.backward(dh, up)
            dskips += mine
            dtemb, dcontext = add_gradients(dtemb, d), add_gradients(dcontext, dc)
        return (*dskips, dh), dtemb, dcontext


def require_residuals(residuals, features):
    """ValueError unless there is a residual for each feature map, and like it."""
    if len(residuals) != len(features):
        raise ValueError(f"residuals: expected {len(features)} arrays, got {len(residuals)}")
    for i, (residual, feature) in enumerate(zip(residuals, features)):
        require_shape(f"residuals[{i}]", residual, feature.shape)
