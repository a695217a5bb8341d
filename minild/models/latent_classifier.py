"""LatentClassifier: p(y | z_t), of latents at any noise level, for classifier guidance (arXiv 2105.05233)."""

import numpy as np

from minild.backend import get_array_module
from minild.errors import UserError
from minild.models.model import Model, require_divisor
from minild.nn.embeddings import SinusoidalEmbedding
from minild.nn.layers import Conv2d, GroupNorm, Linear
from minild.nn.unet_blocks import DownBlock2D
from minild.ops.loss import cross_entropy, cross_entropy_backward


class LatentClassifier(Model):
    """The half of a U-Net that goes down, the mean over the positions, a linear layer.

    x (N, h, w, c), timesteps t (N,) -> logits (N, classes). `classes` in the config are the classes' names.
    """

    defaults = {
        "in_channels": 4,
        "classes": [],
        "block_out_channels": [64, 128],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }
    free = frozenset({"classes"})
    only: dict = {}
    most_classes = 100_000

    @classmethod
    def complete_config(cls, config):
        """See Model.complete_config; the groups divide every width."""
        complete = super().complete_config(config)
        classes = complete["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise UserError(f"{cls.__name__}: classes = {classes!r} is not supported, use a list of names")
        if len(classes) > cls.most_classes:
            raise UserError(f"{cls.__name__}: {len(classes):,} classes are too many, {cls.most_classes:,} is the most")
        require_divisor(cls.__name__, "norm_num_groups", complete["norm_num_groups"], complete["block_out_channels"])
        return complete

    def __init__(self, config):
        super().__init__(config)
        widths, groups, eps = config["block_out_channels"], config["norm_num_groups"], config["norm_eps"]
        temb = 4 * widths[0]
        self.conv_in = Conv2d(config["in_channels"], widths[0])
        self.time_embedding = SinusoidalEmbedding(widths[0], temb, config["flip_sin_to_cos"], config["freq_shift"])
        settings = {"temb_channels": temb, "layers": config["layers_per_block"], "groups": groups, "eps": eps}
        self.down_blocks = [
            DownBlock2D(before, width, downsample=i < len(widths) - 1, **settings)
            for i, (before, width) in enumerate(zip([widths[0], *widths], widths))
        ]
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps, silu=True)
        self.head = Linear(widths[-1], len(config["classes"]))

    def forward(self, x, t):
        """x (N, h, w, c), t (N,) timesteps -> logits (N, classes)."""
        wide = np.promote_types(x.dtype, "float32")  # in float16 the angles of a large t are mostly rounding
        temb, time = self.time_embedding.forward(t.astype(wide))
        h, conv_in = self.conv_in.forward(x)
        downs = []
        for block in self.down_blocks:
            (h, _), cache = block.forward(h, temb, None)
            downs.append(cache)
        h, norm = self.conv_norm_out.forward(h)
        logits, head = self.head.forward(h.mean(axis=(1, 2)))
        return logits, (time, conv_in, downs, norm, h.shape, head)

    def backward(self, dlogits, cache):
        """dlogits (N, classes) -> dx (N, h, w, c), dt (N,)."""
        time, conv_in, downs, norm, (N, h, w, C), head = cache
        dmean = self.head.backward(dlogits, head)
        xp = get_array_module(dmean)
        dh = xp.ascontiguousarray(xp.broadcast_to((dmean / (h * w)).reshape(N, 1, 1, C), (N, h, w, C)))
        dh, dtemb = self.conv_norm_out.backward(dh, norm), 0
        for block, down in zip(reversed(self.down_blocks), reversed(downs)):
            skips = [0] * (len(block.resnets) + len(block.downsamplers))  # nothing comes back through them here
            dh, d, _ = block.backward((dh, skips), down)
            dtemb = dtemb + d
        return self.conv_in.backward(dh, conv_in), self.time_embedding.backward(dtemb, time)

    def log_probability(self, x, t, labels):
        """-> (log p(y | z_t) summed over the pictures, its gradient ∇_z like x), for x = z_t and labels (N,).

        The gradient of the sum is that of each picture's own, for none depends on another.
        """
        own = self.replica()  # the gradients of the weights, which nobody asks for, fall to it
        logits, cache = own.forward(x, t)
        loss, loss_cache = cross_entropy(logits, labels)
        dx, _ = own.backward(cross_entropy_backward(-float(len(x)), loss_cache), cache)
        return -len(x) * loss, dx
