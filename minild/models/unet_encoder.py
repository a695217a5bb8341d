"""UNetEncoder: the way down of a U-Net to its middle, which a ControlNet has, too."""

import numpy as np

from minild.backend import get_array_module
from minild.errors import UserError
from minild.models.model import Model, require_block_types, require_divisor
from minild.nn.embeddings import SinusoidalEmbedding, class_embedding, context_projection
from minild.nn.layers import Conv2d
from minild.nn.module import add_gradients
from minild.nn.unet_blocks import DOWN_BLOCKS, UNetMidBlock2DCrossAttn
from minild.ops.validate import require_rank, require_shape

ALIKE = (
    "cross_attention_dim", "reverse_transformer_layers_per_block", "transformer_layers_per_block",
)


def per_level(config, field):
    """The values of a field, one for each level: it may be one number for all of them."""
    value = config[field]
    return list(value) if isinstance(value, (list, tuple)) else [value] * len(config["block_out_channels"])


class UNetEncoder(Model):
    """conv_in, the embeddings of timestep and class, the down blocks and the middle. No forward: a subclass has one.

    Two tables more than a Model's say what differs between its subclasses: mid_blocks, the supported values of
    mid_block_type, and class_embeddings, those of class_embed_type.
    """

    defaults = {
        "in_channels": 4,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "cross_attention_dim": 1280,
        "attention_head_dim": 8,
        "use_linear_projection": False,
        "only_cross_attention": False,
        "class_embed_type": None,
        "num_class_embeds": None,
        "projection_class_embeddings_input_dim": None,
    }
    only = {
        "downsample_padding": [1],
        "mid_block_scale_factor": [1],
        "act_fn": ["silu", "swish"],
        "transformer_layers_per_block": [1],
        "num_attention_heads": [None],
        "resnet_time_scale_shift": ["default"],
        "addition_embed_type": [None],
        "quantization_config": [None],
    }
    # of kinds of blocks and of embeddings that these models do not have
    inert = frozenset("upcast_attention addition_embed_type_num_heads addition_time_embed_dim".split())
    other_models = (
        *Model.other_models, "add_embedding", "class_embedding", "encoder_hid_proj", "label_emb", "position_net",
        "time_proj",
    )
    mid_blocks = ("UNetMidBlock2DCrossAttn",)
    class_embeddings = (None, "timestep", "identity", "projection")

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
        for field in ("layers_per_block", "attention_head_dim"):
            numbers = per_level(complete, field)
            if len(numbers) != levels or not all(isinstance(number, int) for number in numbers):
                raise cls._unsupported(complete, field, f"one number, or {levels}")
        only_cross = per_level(complete, "only_cross_attention")
        if len(only_cross) != levels or not all(isinstance(only, bool) for only in only_cross):
            raise cls._unsupported(complete, "only_cross_attention", f"true or false, or {levels} of them")
        for field in ("cross_attention_dim", "norm_num_groups"):
            cls._require_number(complete, field)
        widths, heads = complete["block_out_channels"], per_level(complete, "attention_head_dim")
        require_divisor(cls.__name__, "norm_num_groups", complete["norm_num_groups"], widths)
        for number, width in zip(heads, widths):
            require_divisor(cls.__name__, "attention_head_dim", number, [width])
        for field, kinds in (("mid_block_type", cls.mid_blocks), ("class_embed_type", cls.class_embeddings)):
            cls._require_one_of(complete, field, kinds)
        if "proj" in (complete["class_embed_type"] or ""):
            cls._require_whole(complete, "projection_class_embeddings_input_dim")
        if complete["num_class_embeds"] is not None:
            cls._require_whole(complete, "num_class_embeds")
        return complete

    @classmethod
    def _require_number(cls, complete, field):
        if not isinstance(complete[field], int):
            raise cls._unsupported(complete, field, "one number")

    @classmethod
    def _require_one_of(cls, complete, field, kinds):
        if complete[field] not in kinds:
            names = ["null" if kind is None else repr(kind) for kind in kinds]
            raise cls._unsupported(complete, field, (" or " if len(names) == 2 else ", ").join(names))

    @classmethod
    def _require_whole(cls, complete, field):
        if type(complete[field]) is not int or complete[field] < 1:
            raise cls._unsupported(complete, field, "a whole number from 1")

    @classmethod
    def _unsupported(cls, config, field, use):
        return UserError(f"{cls.__name__}: {field} = {config[field]!r} is not supported, use {use}")

    def __init__(self, config):
        super().__init__(config)
        channels = list(config["block_out_channels"])
        layers = per_level(config, "layers_per_block")
        temb = config.get("time_embedding_dim") or 4 * channels[0]
        # The reference's misnomer: for these models attention_head_dim is the number of heads.
        heads = per_level(config, "attention_head_dim")
        only_cross, last = per_level(config, "only_cross_attention"), len(channels) - 1
        self.conv_in = Conv2d(config["in_channels"], channels[0])
        self.time_embedding = SinusoidalEmbedding(channels[0], temb, config["flip_sin_to_cos"], config["freq_shift"])
        self.encoder_hid_proj = context_projection(config) if "encoder_hid_dim_type" in config else None
        self.class_embedding = class_embedding(config, temb)
        self.temb_width, self.concatenates = temb, bool(config.get("class_embeddings_concat"))
        if self.class_embedding and self.concatenates:
            temb *= 2
        widths = [channels[0], *channels]
        self._everywhere = {
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
                **self._everywhere,
            )
            for i, kind in enumerate(config["down_block_types"])
        ]
        self.mid_block = None
        if config["mid_block_type"]:
            self.mid_block = UNetMidBlock2DCrossAttn(channels[-1], heads=heads[-1], **self._everywhere)

    def skip_channels(self):
        """The widths of the skips, in the order in which the way down leaves them."""
        channels, layers = self.config["block_out_channels"], per_level(self.config, "layers_per_block")
        skips = [channels[0]]
        for block, width, count in zip(self.down_blocks, channels, layers):
            skips += [width] * (count + len(block.downsamplers))
        return skips

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
        if config.get("encoder_hid_dim_type") == "image_proj":
            require_shape("context", context, (N, config["encoder_hid_dim"]))
        else:
            width = config.get("encoder_hid_dim") or config["cross_attention_dim"]
            require_shape("context", context, (N, None, width))
        self._require_floats(x=x, context=context)
        self._require_labels(class_labels, N)

    def _require_floats(self, **arguments):
        """ValueError unless all are of the weights' dtype, and none is empty."""
        for name, argument in arguments.items():
            if not argument.size:
                raise ValueError(f"{name}: expected at least one of everything, got shape {argument.shape}")
            if argument.dtype != self.dtype:
                raise ValueError(f"{name}: expected dtype {self.dtype} like the weights, got {argument.dtype}")

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

    def _down(self, h, temb, context):
        """What conv_in made, (N, h, w, C) -> (the middle's output, the skips from the first), cache."""
        skips, downs, mid = [h], [], None
        for block in self.down_blocks:
            (h, left), cache = block.forward(h, temb, context)
            skips += left
            downs.append(cache)
        if self.mid_block:
            h, mid = self.mid_block.forward(h, temb, context)
        return (h, skips), (downs, mid)

    def _down_backward(self, dh, dskips, cache):
        """dh like the middle's output, dskips like the skips -> dh like what conv_in made, dtemb, dcontext."""
        downs, mid = cache
        dskips, dtemb, dcontext = list(dskips), None, None
        if self.mid_block:
            dh, dtemb, dcontext = self.mid_block.backward(dh, mid)
        for block, down in zip(reversed(self.down_blocks), reversed(downs)):
            count = len(block.resnets) + len(block.downsamplers)
            mine, dskips = dskips[-count:], dskips[:-count]
            dh, d, dc = block.backward((dh, mine), down)
            dtemb, dcontext = add_gradients(dtemb, d), add_gradients(dcontext, dc)
        return dh + dskips[0], dtemb, dcontext

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
        if self.concatenates:
            return get_array_module(temb).concatenate([temb, embedded], axis=1), (time, labels)
        return temb + embedded, (time, labels)

    def _embed_backward(self, dtemb, cache):
        """dtemb (N, temb) -> dt (N,), and dclass_labels, None where they have no gradient."""
        time, labels = cache
        dlabels = None
        if self.class_embedding:
            dembedded = dtemb[:, self.temb_width :] if self.concatenates else dtemb
            dlabels = self.class_embedding.backward(dembedded, labels)
            dtemb = dtemb[:, : self.temb_width]
        return self.time_embedding.backward(dtemb, time), dlabels
