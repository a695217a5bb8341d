"""Condition: all that leads a U-Net beside the latents and the timestep (paper, figure 3 and section 3.3)."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.nn.module import Module, add_gradients


class Condition(NamedTuple):
    """What y is, for N pictures; any of the four may be None, for none."""

    context: Any = None  # (N, L, D): tokens that the U-Net attends to; (N, D) of "image_proj"
    class_labels: Any = None  # (N,): classes, added to the embedding of the timestep
    channels: Any = None  # (N, h, w, k): put beside the latents' own channels, after them
    control: Any = None  # (N, H, W, 3) in [0, 1]: a picture that a ControlNet looks at

    def of(self, rows):
        """The condition of some of the pictures."""
        return Condition(*(None if part is None else part[rows] for part in self))


class Conditioned(Module):
    """A U-Net as a model of (x, t, condition), so that a loss or a sampler need not know what leads it.

    Where the condition has no context, what attends to one finds a single token of zeros. A ControlNet looks at the
    condition's `control` and at the latents alone, and `scale` times its residuals are added to the U-Net's features.
    """

    def __init__(self, unet, controlnet=None, scale=1.0):
        self.unet, self.controlnet, self.scale = unet, controlnet, scale

    def forward(self, x, t, condition):
        """x (N, h, w, c), t (N,), a Condition -> what the U-Net predicts."""
        xp, context, labels, channels = get_array_module(x), *condition[:3]
        if context is None:
            config = self.unet.config
            context = xp.zeros((len(x), 1, config["encoder_hid_dim"] or config["cross_attention_dim"]), x.dtype)
        both, residuals, seen = x if channels is None else xp.concatenate([x, channels], axis=-1), None, None
        if self.controlnet:
            residuals, seen = self.controlnet.forward(x, t, context, condition.control, labels)
            residuals = self._scaled(residuals)
        y, cache = self.unet.forward(both, t, context, labels, residuals)
        return y, (cache, seen, x.shape[-1])

    def backward(self, dy, cache):
        """dy like y -> dx, dt, dcontext (of a token of zeros too, which is nobody's)."""
        cache, seen, width = cache
        dboth, dt, dcontext, *more = self.unet.backward(dy, cache)
        dx = dboth[..., :width]
        if self.controlnet:
            d = self.controlnet.backward(self._scaled(more[-1]), seen)
            dx, dt, dcontext = dx + d[0], dt + d[1], add_gradients(dcontext, d[2])
        return dx, dt, dcontext

    def _scaled(self, residuals):
        return tuple(self.scale * residual for residual in residuals)
