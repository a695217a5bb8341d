"""Layers: an op and its parameters."""

from minild.nn.module import Module, Parameter, keep
from minild.ops.activation import geglu, geglu_backward, quick_gelu, quick_gelu_backward, silu, silu_backward
from minild.ops.activation import gelu as gelu_op
from minild.ops.activation import gelu_backward as gelu_op_backward
from minild.ops.conv import conv2d, conv2d_backward
from minild.ops.embedding import token_embedding, token_embedding_backward
from minild.ops.linear import linear, linear_backward
from minild.ops.norm import (
    group_norm,
    group_norm_backward,
    group_norm_silu,
    group_norm_silu_backward,
    layer_norm,
    layer_norm_backward,
)
from minild.ops.resample import upsample_nearest, upsample_nearest_backward


class Linear(Module):
    """x (..., Cin) -> y (..., Cout)."""

    def __init__(self, in_features, out_features, bias=True, init="fan_in"):
        self.weight = Parameter((in_features, out_features), init, "linear")
        self.bias = Parameter((out_features,), 0.0) if bias else None

    def forward(self, x):
        y, cache = linear(x, self.weight.value, self.bias.value if self.bias else None)
        return y, keep(cache)

    def backward(self, dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        self.weight.accumulate(dweight)
        if self.bias:
            self.bias.accumulate(dbias)
        return dx


class Conv2d(Module):
    """x (N, H, W, Cin) -> y (N, Ho, Wo, Cout)."""

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, padding=1, init="fan_in"):
        self.weight = Parameter((kernel_size, kernel_size, in_channels, out_channels), init, "conv")
        self.bias = Parameter((out_channels,), 0.0)
        self.stride, self.padding = stride, padding

    def forward(self, x):
        y, cache = conv2d(x, self.weight.value, self.bias.value, self.stride, self.padding)
        return y, keep(cache)

    def backward(self, dy, cache):
        dx, dweight, dbias = conv2d_backward(dy, cache)
        self.weight.accumulate(dweight)
        self.bias.accumulate(dbias)
        return dx


class GroupNorm(Module):
    """x (N, ..., C) -> y like x; with `silu`, SiLU after it, as one op."""

    def __init__(self, groups, channels, eps, silu=False):
        self.weight, self.bias = Parameter((channels,), 1.0), Parameter((channels,), 0.0)
        self.groups, self.eps, self.silu = groups, eps, silu

    def forward(self, x):
        op = group_norm_silu if self.silu else group_norm
        y, cache = op(x, self.weight.value, self.bias.value, self.groups, self.eps)
        return y, keep(cache)

    def backward(self, dy, cache):
        op_backward = group_norm_silu_backward if self.silu else group_norm_backward
        dx, dgamma, dbeta = op_backward(dy, cache)
        self.weight.accumulate(dgamma)
        self.bias.accumulate(dbeta)
        return dx


class LayerNorm(Module):
    """x (..., D) -> y like x."""

    def __init__(self, width, eps=1e-5):
        self.weight, self.bias = Parameter((width,), 1.0), Parameter((width,), 0.0)
        self.eps = eps

    def forward(self, x):
        y, cache = layer_norm(x, self.weight.value, self.bias.value, self.eps)
        return y, keep(cache)

    def backward(self, dy, cache):
        dx, dgamma, dbeta = layer_norm_backward(dy, cache)
        self.weight.accumulate(dgamma)
        self.bias.accumulate(dbeta)
        return dx


class Embedding(Module):
    """ids (N, L) -> y (N, L, D)."""

    def __init__(self, vocabulary, width, deviation=0.02):
        self.weight = Parameter((vocabulary, width), ("normal", deviation))

    def forward(self, ids):
        y, cache = token_embedding(ids, self.weight.value)
        return y, keep(cache)

    def backward(self, dy, cache):
        """Adds to the weight's gradient; ids have none, so nothing is returned."""
        self.weight.accumulate(token_embedding_backward(dy, cache))


class Stateless(Module):
    """An op without parameters, as a layer: in inference its cache is dropped like every other."""

    def __init__(self, op, op_backward):
        self.op, self.op_backward = op, op_backward

    def forward(self, x):
        y, cache = self.op(x)
        return y, keep(cache)

    def backward(self, dy, cache):
        return self.op_backward(dy, cache)


SILU = Stateless(silu, silu_backward)
GEGLU = Stateless(geglu, geglu_backward)
UPSAMPLE = Stateless(upsample_nearest, upsample_nearest_backward)
ACTIVATIONS = {
    "silu": SILU,
    "swish": SILU,
    "gelu": Stateless(gelu_op, gelu_op_backward),
    "quick_gelu": Stateless(quick_gelu, quick_gelu_backward),
}
