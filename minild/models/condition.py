"""Condition: all that leads a U-Net beside the latents and the timestep (paper, figure 3 and section 3.3)."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.nn.module import Module


class Condition(NamedTuple):
    """What y is, for N pictures; any of the three may be None, for none."""

    context: Any = None  # (N, L, D): tokens that the U-Net attends to; (N, D) of "image_proj"
    class_labels: Any = None  # (N,): classes, added to the embedding of the timestep
    channels: Any = None  # (N, h, w, k): put beside the latents' own channels, after them

    def of(self, rows):
        """The condition of some of the pictures."""
        return Condition(*(None if part is None else part[rows] for part in self))


class Conditioned(Module):
    """A U-Net as a model of (x, t, condition), so that a loss or a sampler need not know what leads it.

    Where the condition has no context, what attends to one finds a single token of zeros.
    """

    def __init__(self, unet):
        self.unet = unet

    def forward(self, x, t, condition):
        """x (N, h, w, c), t (N,), a Condition -> what the U-Net predicts."""
        xp, context, channels = get_array_module(x), condition.context, condition.channels
        if context is None:
            config = self.unet.config
            context = xp.zeros((len(x), 1, config["encoder_hid_dim"] or config["cross_attention_dim"]), x.dtype)
        both = x if channels is None else xp.concatenate([x, channels], axis=-1)
        y, cache = self.unet.forward(both, t, context, condition.class_labels)
        return y, (cache, x.shape[-1])

    def backward(self, dy, cache):
        """dy like y -> dx, dt, dcontext (of a token of zeros too, which is nobody's)."""
        cache, width = cache
        dx, dt, dcontext = self.unet.backward(dy, cache)[:3]
        return dx[..., :width], dt, dcontext
