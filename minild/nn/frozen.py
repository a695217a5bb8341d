"""Layers whose weights are not trained: what flows through them back, and nothing else.

The gradient of the input is the layer's own op once more, with the weight the other way round. It needs nothing of the
forward but the input's shape, so a frozen layer keeps no input for its backward: half of a large model's memory.
"""

from minild.backend import get_array_module
from minild.engine import run
from minild.engine.memory import inference
from minild.ops.conv import conv2d, margins_of
from minild.ops.linear import linear


def without_cache(op, *arguments):
    """y of an op whose backward is not called."""
    with inference():
        return run(op, *arguments)[0]


def linear_input_gradient(dy, weight):
    """dx = dy @ weightᵀ: dy (..., Cout), weight (Cin, Cout) -> (..., Cin)."""
    return without_cache(linear, dy, weight.T)


def conv2d_input_gradient(dy, weight, shape, stride=1, padding=0):
    """dy (N, Ho, Wo, Cout), weight (kH, kW, Cin, Cout) -> dx of the input's `shape`, (N, H, W, Cin).

    dx = dy' ⋆ weight', where weight' is turned by 180° and its channels have changed places: a pixel collects dy from
    every output that saw it, by the tap that saw it. dy' has stride - 1 zeros between its pixels, and zeros for the
    last pixels of the picture, where the stride left some unseen. The padding is at most the kernel's size - 1.
    """
    xp, (kH, kW), margins = get_array_module(dy), weight.shape[:2], margins_of(padding)
    sides = [size + sum(margin) - k + 1 for size, margin, k in zip(shape[1:3], margins, (kH, kW))]
    if sides != list(dy.shape[1:3]):
        between = xp.zeros((len(dy), *sides, dy.shape[3]), dy.dtype)
        between[:, ::stride, ::stride] = dy
        dy = between
    turned = xp.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
    back = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip((kH, kW), margins))
    return without_cache(conv2d, dy, turned, None, 1, back)
