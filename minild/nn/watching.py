"""Watching attention: what each query takes of each key, seen by whoever asks, and replaced where they wish.

An engine that computes attention in pieces never holds the probabilities softmax(Q Kᵀ / √d). So nobody is asked unless
somebody watches; and then the textbook computes them beside the engine, whose result stands unless it is replaced:
what is only watched stays the same bit for bit.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import NamedTuple

from minild.engine import run
from minild.engine.memory import in_inference
from minild.ops.attention import attention, merge_heads


class Place(NamedTuple):
    """Where in a model probabilities are."""

    layer: str  # its name in the model, such as down_blocks.0.attentions.0.transformer_blocks.0.attn2
    cross: bool  # attention to the context; else self-attention
    queries: int  # Lq
    keys: int  # Lk


class _Watch(NamedTuple):
    names: dict  # {module: its name} of the model that is watched
    wants: Callable
    see: Callable


_watches = contextvars.ContextVar("who watches attention", default=())


@contextlib.contextmanager
def watch_layers(model, see, wants=lambda place: True):
    """Within it, see(place, weights) is called for each attention layer of the model, whenever it computes.

    see      takes a Place and the probabilities, (N, heads, Lq, Lk), rows of sum 1, which it must not write into; it
             gives None, or what is to stand in their place, of the same shape and dtype
    wants    wants(place) -> whether to compute them there at all: they take N · heads · Lq · Lk numbers

    Of several watchers each sees what the one outside of it left. It holds for this thread and the library's own
    threads, as `minild.using` does. Replaced probabilities have no backward: ValueError from a `forward` for training,
    as from a replacement of another shape.
    """
    token = _watches.set((*_watches.get(), _Watch(dict(_modules(model)), wants, see)))
    try:
        yield
    finally:
        _watches.reset(token)


def _modules(module, name=""):
    """(module, name) of a module and all below it."""
    yield module, name
    for child_name, child in module.children():
        yield from _modules(child, f"{name}.{child_name}" if name else child_name)


def attend(layer, q, k, v, cross):
    """`run(attention, q, k, v, layer.heads)`, seen by those who watch the layer -> y, call."""
    y, call = run(attention, q, k, v, layer.heads)
    seers = []
    for watch in _watches.get():
        if layer in watch.names:
            place = Place(watch.names[layer], cross, q.shape[1], k.shape[1])
            if watch.wants(place):
                seers.append((watch.see, place))
    if not seers:
        return y, call
    _, cache = attention(q, k, v, layer.heads)
    weights = cache.weights
    for see, place in seers:
        given = see(place, weights)
        if given is not None:
            weights = _fitting(given, weights, place)
    if weights is cache.weights:
        return y, call
    return merge_heads(weights @ cache.v), None


def _fitting(given, weights, place):
    """The replacement. ValueError unless it can stand where the probabilities did."""
    if given.shape != weights.shape or given.dtype != weights.dtype:
        expected = f"{weights.dtype} {weights.shape}"
        raise ValueError(f"{place.layer}: expected probabilities {expected}, got {given.dtype} {given.shape}")
    if not in_inference():
        raise ValueError(f"{place.layer}: replaced probabilities have no backward: call the model, not its forward")
    return given
