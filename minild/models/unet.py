"""UNet2DConditionModel: the time-conditional U-Net with cross-attention.

(Latent diffusion paper, arXiv 2112.10752, sections 3.2 and 3.3.)
"""

import numpy as np

from minild.backend import get_array_module
from minild.errors import UserError
from minild.models.model import Model, require_block_types, require_divisor
from minild.nn.embeddings import SinusoidalEmbedding, class_embedding, context_projection
from minild.nn.layers import Conv2d, GroupNorm
from minild.nn.module import add_gradients
from minild.nn.unet_blocks import DOWN_BLOCKS, UP_BLOCKS, UNetMidBlock2DCrossAttn
from minild.ops.validate import require_rank, require_shape

MID_BLOCKS = ("UNetMidBlock2DCrossAttn", None)
CLASS_EMBEDDINGS = (None, "timestep", "identity", "projection", "simple_projection")
CONTEXT_PROJECTIONS = (None, "text_proj", "image_proj")
ALIKE = (
    "cross_attention_dim", "reverse_transformer_layers_per_block", "transformer_layers_per_block",
)


def per_level(config, field):
    """The values of a field, one for each level: it may be one number for all of them."""
    value = config[field]
    return list(value) if isinstance(value, (list, tuple)) else [value] * len(config["block_out_channels"])


def _is_size(value):
    """Whether it is a side, two sides, or None."""
    sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
    return value is None or all(type(side) is int and side >= 1 for side in sides)


class UNet2DConditionModel(Model):
    """ε_θ(z_t, t, τ_θ(y)): x (N, h, w, c), timesteps t (N,), context (N, L, D) -> (N, h, w, out_channels).

    Where the config says so it takes class labels too, and a context that it projects itself: see nn.embeddings.
    in_channels may be more than out_channels: what an inpainting model is given beside the latents, say.
    """

    defaults = {
        "sample_size": None,
        "in_channels": 4,
        "out_channels": 4,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "cross_attention_dim": 1280,
        "attention_head_dim": 8,
        "use_linear_projection": False,
        "only_cross_attention": False,
        "time_embedding_dim": None,
        "class_embed_type": None,
        "num_class_embeds": None,
        "projection_class_embeddings_input_dim": None,
        "class_embeddings_concat": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
    }
    only = {
        "center_input_sample": [False, None],
        "downsample_padding": [1],
        "mid_block_scale_factor": [1],
        "act_fn": ["silu", "swish"],
        "transformer_layers_per_block": [1],
        "num_attention_heads": [None],
        "dual_cross_attention": [False, None],
        "resnet_time_scale_shift": ["default"],
        "time_embedding_type": ["positional"],
        "conv_in_kernel": [3],
        "conv_out_kernel": [3],
        "attention_type": ["default", None],
        "reverse_transformer_layers_per_block": [None, 1],
    } | {
        field: [None]
        for field in (
            "addition_embed_type time_embedding_act_fn timestep_post_act time_cond_proj_dim quantization_config"
        ).split()
    }
    inert = frozenset(
        (
            "upcast_attention dropout "
            # of kinds of blocks and of embeddings that this model does not have
            "resnet_skip_time_act resnet_out_scale_factor mid_block_only_cross_attention cross_attention_norm "
            "addition_embed_type_num_heads addition_time_embed_dim"
        ).split()
    )
    other_models = (
        *Model.other_models, "add_embedding", "class_embedding", "encoder_hid_proj", "label_emb", "position_net",
        "time_proj",
    )

    @classmethod
    def complete_config(cls, config):
        """See Model.complete_config; each width has a block type, and its own of the numbers that a list gives.

        The fields ALIKE may be lists, too, of one value for all levels.
        """
        levels = len(config.get("block_out_channels", cls.defaults["block_out_channels"]))
        for field in ALIKE:
            value = config.get(field)
            if isinstance(value, (list, tuple)) and len(value) == levels and all(one == value[0] for one in value):
                config = config | {field: value[0]}
        complete = super().complete_config(config)
        require_block_types(cls.__name__, complete, "down_block_types", DOWN_BLOCKS)
        require_block_types(cls.__name__, complete, "up_block_types", UP_BLOCKS)
        for field in ("layers_per_block", "attention_head_dim"):
            numbers = per_level(complete, field)
            if len(numbers) != levels or not all(isinstance(number, int) for number in numbers):
                raise cls._unsupported(complete, field, f"one number, or {levels}")
        only_cross = per_level(complete, "only_cross_attention")
        if len(only_cross) != levels or not all(isinstance(only, bool) for only in only_cross):
            raise cls._unsupported(complete, "only_cross_attention", f"true or false, or {levels} of them")
        for field in ("cross_attention_dim", "norm_num_groups"):
            if not isinstance(complete[field], int):
                raise cls._unsupported(complete, field, "one number")
        widths, heads = complete["block_out_channels"], per_level(complete, "attention_head_dim")
        require_divisor(cls.__name__, "norm_num_groups", complete["norm_num_groups"], widths)
        for number, width in zip(heads, widths):
            require_divisor(cls.__name__, "attention_head_dim", number, [width])
        if not _is_size(complete["sample_size"]):
            raise cls._unsupported(complete, "sample_size", "a number of 1 or more, two of them, or null")
        if complete["mid_block_type"] not in MID_BLOCKS:
            raise cls._unsupported(complete, "mid_block_type", f"{MID_BLOCKS[0]!r} or null")
        return cls._complete_embeddings(complete)

    @classmethod
    def _complete_embeddings(cls, complete):
        """The config with the fields of nn.embeddings' class_embedding and context_projection checked."""
        complete["class_embeddings_concat"] = bool(complete["class_embeddings_concat"])
        if complete["encoder_hid_dim_type"] is None and complete["encoder_hid_dim"] is not None:
            complete["encoder_hid_dim_type"] = CONTEXT_PROJECTIONS[1]  # as the reference has it
        for field, kinds in (("class_embed_type", CLASS_EMBEDDINGS), ("encoder_hid_dim_type", CONTEXT_PROJECTIONS)):
            if complete[field] not in kinds:
                raise cls._unsupported(complete, field, f"null, {', '.join(map(repr, kinds[1:]))}")
        needed = ["projection_class_embeddings_input_dim"] if "proj" in (complete["class_embed_type"] or "") else []
        needed += ["encoder_hid_dim"] if complete["encoder_hid_dim_type"] else []
        needed += ["num_class_embeds"] if complete["num_class_embeds"] is not None else []
        for field in needed:
            if type(complete[field]) is not int or complete[field] < 1:
                raise cls._unsupported(complete, field, "a whole number from 1")
        return complete

    @classmethod
    def _unsupported(cls, config, field, use):
        return UserError(f"{cls.__name__}: {field} = {config[field]!r} is not supported, use {use}")

    def __init__(self, config):
        super().__init__(config)
        channels = list(config["block_out_channels"])
        layers = per_level(config, "layers_per_block")
        temb = config["time_embedding_dim"] or 4 * channels[0]
        # The reference's misnomer: for this model attention_head_dim is the number of heads.
        heads = per_level(config, "attention_head_dim")
        only_cross = per_level(config, "only_cross_attention")
        last = len(channels) - 1
        self.conv_in = Conv2d(config["in_channels"], channels[0])
        self.time_embedding = SinusoidalEmbedding(channels[0], temb, config["flip_sin_to_cos"], config["freq_shift"])
        self.encoder_hid_proj = context_projection(config)
        self.class_embedding = class_embedding(config, temb)
        self.temb_width = temb
        if self.class_embedding and config["class_embeddings_concat"]:
            temb *= 2
        widths = [channels[0], *channels]
        everywhere = {
            "temb_channels": temb,
            "groups": config["norm_num_groups"],
            "eps": config["norm_eps"],
            "context_width": config["cross_attention_dim"],
            "linear_projection": config["use_linear_projection"],
        }
        self.down_blocks = [
            DOWN_BLOCKS[kind](
                widths[i],
                widths[i + 1],
                layers=layers[i],
                downsample=i < last,
                heads=heads[i],
                only_cross=only_cross[i],
                **everywhere,
            )
            for i, kind in enumerate(config["down_block_types"])
        ]
        self.mid_block = None
        if config["mid_block_type"]:
            self.mid_block = UNetMidBlock2DCrossAttn(channels[-1], heads=heads[-1], **everywhere)
        skips = [channels[0]]
        for i, width in enumerate(channels):
            skips += [width] * (layers[i] + (i < last))
        self.up_blocks, width = [], channels[-1]
        for i, kind in enumerate(config["up_block_types"]):
            mine = [skips.pop() for _ in range(layers[last - i] + 1)]
            out = channels[last - i]
            block = UP_BLOCKS[kind](
                width,
                mine,
                out,
                upsample=i < last,
                heads=heads[last - i],
                only_cross=only_cross[last - i],
                **everywhere,
            )
            self.up_blocks.append(block)
            width = out
        self.conv_norm_out = GroupNorm(config["norm_num_groups"], channels[0], config["norm_eps"], silu=True)
        self.conv_out = Conv2d(channels[0], config["out_channels"], init=0.0)

    def require(self, x, t, context, class_labels=None):
        """ValueError unless the arguments of `forward` fit each other and the config."""
        config = self.config
        for name, argument in (("x", x), ("t", t), ("context", context)):
            if not hasattr(argument, "shape"):
                raise ValueError(f"{name}: expected an array, got {argument!r}")
        require_rank("x", x, 4, "(N, h, w, c)")
        N = x.shape[0]
        require_shape("x", x, (N, None, None, config["in_channels"]))
        require_shape("t", t, (N,))
        if t.dtype.kind not in "fiu":
            raise ValueError(f"t: expected numbers, got dtype {t.dtype}")
        if config["encoder_hid_dim_type"] == "image_proj":
            require_shape("context", context, (N, config["encoder_hid_dim"]))
        else:
            require_shape("context", context, (N, None, config["encoder_hid_dim"] or config["cross_attention_dim"]))
        for name, argument in (("x", x), ("context", context)):
            if not argument.size:
                raise ValueError(f"{name}: expected at least one of everything, got shape {argument.shape}")
            if argument.dtype != self.dtype:
                raise ValueError(f"{name}: expected dtype {self.dtype} like the weights, got {argument.dtype}")
        self._require_labels(class_labels, N)

    def _require_labels(self, labels, N):
        """ValueError unless the class labels are what the config asks for."""
        config, kind = self.config, self.config["class_embed_type"]
        if not self.class_embedding:
            if labels is not None:
                raise ValueError("class_labels: expected None, for the config has no class embedding")
            return
        if not hasattr(labels, "shape"):
            raise ValueError(f"class_labels: expected an array, got {labels!r}")
        widths = {None: (), "timestep": (), "identity": (self.temb_width,)}
        require_shape(
            "class_labels", labels, (N, *widths.get(kind, (config["projection_class_embeddings_input_dim"],)))
        )
        if labels.dtype.kind not in ("iu" if kind is None else "fiu"):
            what = "whole numbers" if kind is None else "numbers"
            raise ValueError(f"class_labels: expected {what}, got dtype {labels.dtype}")

    def forward(self, x, t, context, class_labels=None):
        """x (N, h, w, in_channels), t (N,) numbers from 0 to T - 1, context (N, L, D) -> (N, h, w, out_channels).

        y is what the model predicts. context is (N, L, encoder_hid_dim), or (N, encoder_hid_dim) of "image_proj", where
        the config names one; class_labels are as nn.embeddings.class_embedding has them, labels of a table 0 or more
        and less than num_class_embeds.
        Any h and w will do: each level is half of the one above, rounded up, and on the way back as large as its skips.
        Raises ValueError for a shape that does not fit.
        """
        self.require(x, t, context, class_labels)
        temb, embeddings = self._embed(t, class_labels, x)
        projection = None
        if self.encoder_hid_proj:
            context, projection = self.encoder_hid_proj.forward(context)
        h, conv_in = self.conv_in.forward(x)
        skips, downs, ups = [h], [], []
        for block in self.down_blocks:
            (h, left), cache = block.forward(h, temb, context)
            skips += left
            downs.append(cache)
        mid = None
        if self.mid_block:
            h, mid = self.mid_block.forward(h, temb, context)
        for block in self.up_blocks:
            count = len(block.resnets)
            mine, skips = skips[-count:], skips[:-count]
            size = skips[-1].shape[1:3] if skips else None  # of the next block's skips
            h, cache = block.forward(h, mine, temb, context, size)
            ups.append(cache)
        h, norm = self.conv_norm_out.forward(h)
        y, conv_out = self.conv_out.forward(h)
        return y, (embeddings, projection, conv_in, downs, mid, ups, norm, conv_out)

    def backward(self, dy, cache):
        """dy like y -> dx, dt (N,), dcontext like the context, or None where nothing attends to it.

        And dclass_labels after them, where the labels are numbers or vectors rather than entries of a table.
        """
        embeddings, projection, conv_in, downs, mid, ups, norm, conv_out = cache
        dh = self.conv_out.backward(dy, conv_out)
        dh = self.conv_norm_out.backward(dh, norm)
        dskips = []  # of the skips in their own order, filled from the front as the up blocks go back
        dtemb = dcontext = None
        for block, up in zip(reversed(self.up_blocks), reversed(ups)):
            dh, mine, d, dc = block.backward(dh, up)
            dskips += mine
            dtemb, dcontext = add_gradients(dtemb, d), add_gradients(dcontext, dc)
        if self.mid_block:
            dh, d, dc = self.mid_block.backward(dh, mid)
            dtemb, dcontext = add_gradients(dtemb, d), add_gradients(dcontext, dc)
        for block, down in zip(reversed(self.down_blocks), reversed(downs)):
            count = len(block.resnets) + len(block.downsamplers)
            mine, dskips = dskips[-count:], dskips[:-count]
            dh, d, dc = block.backward((dh, mine), down)
            dtemb, dcontext = add_gradients(dtemb, d), add_gradients(dcontext, dc)
        dx = self.conv_in.backward(dh + dskips[0], conv_in)
        if self.encoder_hid_proj and dcontext is not None:
            dcontext = self.encoder_hid_proj.backward(dcontext, projection)
        dt, dlabels = self._embed_backward(dtemb, embeddings)
        return (dx, dt, dcontext) if dlabels is None else (dx, dt, dcontext, dlabels)

    def _embed(self, t, class_labels, x):
        """The embedding of the timesteps and of the labels, (N, temb) in the dtype of x, and a cache."""
        wide = np.promote_types(x.dtype, "float32")  # in float16 the angles of a large t are mostly rounding
        temb, time = self.time_embedding.forward(t.astype(wide))
        if not self.class_embedding:
            return temb, (time, None)
        if self.config["class_embed_type"]:
            exact = self.config["class_embed_type"] == "timestep"
            class_labels = class_labels.astype(wide if exact else x.dtype)
        embedded, labels = self.class_embedding.forward(class_labels)
        if self.config["class_embeddings_concat"]:
            return get_array_module(temb).concatenate([temb, embedded], axis=1), (time, labels)
        return temb + embedded, (time, labels)

    def _embed_backward(self, dtemb, cache):
        """dtemb (N, temb) -> dt (N,), and dclass_labels, None where they have no gradient."""
        time, labels = cache
        dlabels, concatenated = None, self.config["class_embeddings_concat"]
        if self.class_embedding:
            dembedded = dtemb[:, self.temb_width :] if concatenated else dtemb
            dlabels = self.class_embedding.backward(dembedded, labels)
            dtemb = dtemb[:, : self.temb_width]
        return self.time_embedding.backward(dtemb, time), dlabels
