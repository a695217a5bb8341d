"""Watching a drawing: who wants to see the attention of its U-Net is told which picture and which step it is of, and
who wants to see the picture come about is told the latents after each step.

Watched is the half of classifier-free guidance that the prompts lead; the negative half computes as ever.
"""

import contextlib
import contextvars
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.nn.watching import watch_layers


class Pass(NamedTuple):
    """One pass of the U-Net within a drawing, as a watcher is told of it."""

    request: Any  # the Request that is drawn
    pictures: range  # which of its pictures the rows are
    step: int  # of the sampler, from 0; some samplers ask the U-Net several times a step
    t: float  # the timestep
    shape: tuple  # (h, w) of the latents

    def grid(self, queries):
        """(height, width) of the feature map whose positions are that many queries: each level is half of the last."""
        h, w = self.shape
        while h * w > queries:
            h, w = -(-h // 2), -(-w // 2)
        return h, w


class Watcher:
    """Who watches; the methods are to be overridden."""

    def wants(self, place):
        """Whether the probabilities of a nn.watching.Place are to be computed: by default those of cross-attention."""
        return place.cross

    def see(self, place, weights, now):
        """weights (n, heads, Lq, Lk), now a Pass with n pictures -> None, or what is to stand in their place.

        Pictures that are drawn side by side call it from several threads.
        """
        raise NotImplementedError

    def stepped(self, z, request, pictures, step):
        """Told the latents z (n, h, w, c) after a step, which it must not write into; by default it does nothing.

        pictures: a range, which of the Request's the rows are. step: of the sampler, counted from 1, so that the last
        is request.steps. What it raises ends the drawing.
        """


_watchers = contextvars.ContextVar("who watches drawings", default=())


@contextlib.contextmanager
def watch_drawings(unet, watcher):
    """Within it, the Watcher sees the attention of all that is drawn with the U-Net.

    Of several watchers each sees what the one outside of it left. Like `minild.using`, it holds for this thread and the
    library's own, and a generator is to close it before it yields.
    """
    token = _watchers.set((*_watchers.get(), (unet, watcher)))
    try:
        yield watcher
    finally:
        _watchers.reset(token)


class WatchedModel:
    """A models.Conditioned as guidance calls it, that tells those who watch its U-Net where the drawing stands.

    guidance   a drawing.Guidance of the pictures: it tells one half from the other
    request    the Request that they are part of
    first      the number in it of the first of them
    step       the step that is being taken, from 0: whoever draws keeps count
    """

    def __init__(self, model, guidance, request, first=0):
        self.model, self.guidance, self.request, self.first, self.step = model, guidance, request, first, 0

    def __call__(self, x, t, condition):
        """x (N, h, w, c), or (2N, h, w, c) with the negative half first; t (N,) or (2N,) -> what the model predicts."""
        watchers = [watcher for unet, watcher in _watchers.get() if unet is self.model.unet]
        with contextlib.ExitStack() as watched:
            if watchers and condition is not self.guidance.negative:
                led = len(x) if condition is self.guidance.condition else len(x) // 2
                pictures = range(self.first, self.first + led)
                now = Pass(self.request, pictures, self.step, float(t[0]), x.shape[1:3])
                for watcher in watchers:
                    watched.enter_context(watch_layers(self.model.unet, _of_half(watcher, now), watcher.wants))
            return self.model(x, t, condition)

    def tell(self, z):
        """Tell those who watch of the latents (N, h, w, c) after `step` steps."""
        for unet, watcher in _watchers.get():
            if unet is self.model.unet:
                watcher.stepped(z, self.request, range(self.first, self.first + len(z)), self.step)


def _of_half(watcher, now):
    """What a layer calls, for the rows that the prompts lead: the last."""
    led = len(now.pictures)

    def see(place, weights):
        given = watcher.see(place, weights[-led:], now)
        if given is None or led == len(weights):
            return given
        return get_array_module(weights).concatenate([weights[:-led], given])

    return see
