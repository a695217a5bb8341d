"""Layers: an op and its parameters.

A layer calls its op through the engine: y, cache = run(op, ...). The op's page in minild.ops says what it computes; the
engine computes it by the fastest means, by the textbook or by your own (minild.using); and the cache knows the backward
that belongs to it. Under inference it is None.
"""

from minild.engine import run
from minild.nn.frozen import conv2d_input_gradient, linear_input_gradient, without_cache
from minild.nn.module import Buffer, Module, Parameter
from minild.ops.activation import geglu, gelu, leaky_relu, quick_gelu, relu, silu
from minild.ops.conv import conv2d
from minild.ops.embedding import token_embedding
from minild.ops.linear import linear
from minild.ops.norm import batch_norm, channel_statistics, group_norm, group_norm_silu, layer_norm
from minild.ops.pool import max_pool2d
from minild.ops.resample import upsample_nearest


class Linear(Module):
    """y = x @ weight + bias: (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features, out_features, bias=True, init="fan_in"):
        self.weight = Parameter((in_features, out_features), init, "linear")
        self.bias = Parameter((out_features,), 0.0) if bias else None

    def forward(self, x):
        """x (..., Cin) -> y (..., Cout)."""
        arguments = x, self.weight.value, self.bias.value if self.bias else None
        return (without_cache(linear, *arguments), None) if self.weight.frozen else run(linear, *arguments)

    def backward(self, dy, cache):
        """dy (..., Cout) -> dx (..., Cin)."""
        if self.weight.frozen:
            return linear_input_gradient(dy, self.weight.value)
        dx, dweight, dbias = cache.backward(dy)
        self.weight.accumulate(dweight)
        if self.bias:
            self.bias.accumulate(dbias)
        return dx


class Conv2d(Module):
    """y = x ⋆ weight + bias: (N, H, W, in_channels) -> (N, Ho, Wo, out_channels).

    `padding` is a number of pixels all round, or ((top, bottom), (left, right)).
    """

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, padding=1, bias=True, init="fan_in"):
        self.weight = Parameter((kernel_size, kernel_size, in_channels, out_channels), init, "conv")
        self.bias = Parameter((out_channels,), 0.0) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x):
        """x (N, H, W, Cin) -> y (N, Ho, Wo, Cout)."""
        bias = self.bias.value if self.bias else None
        arguments = x, self.weight.value, bias, self.stride, self.padding
        return (without_cache(conv2d, *arguments), x.shape) if self.weight.frozen else run(conv2d, *arguments)

    def backward(self, dy, cache):
        """dy (N, Ho, Wo, Cout) -> dx (N, H, W, Cin)."""
        if self.weight.frozen:
            return conv2d_input_gradient(dy, self.weight.value, cache, self.stride, self.padding)
        dx, dweight, dbias = cache.backward(dy)
        self.weight.accumulate(dweight)
        if self.bias:
            self.bias.accumulate(dbias)
        return dx


class GroupNorm(Module):
    """y = γ x̂ + β, each group of channels normalised by itself; with `silu`, SiLU after it.

    (N, ..., channels) -> the same shape. The two together are one op to the engine, which activates each piece while it
    is in the cache.
    """

    def __init__(self, groups, channels, eps=1e-5, silu=False):
        self.weight, self.bias = Parameter((channels,), 1.0), Parameter((channels,), 0.0)
        self.groups, self.eps, self.silu = groups, eps, silu

    def forward(self, x):
        """x (N, ..., C) -> y like x."""
        op = group_norm_silu if self.silu else group_norm
        return run(op, x, self.weight.value, self.bias.value, self.groups, self.eps)

    def backward(self, dy, cache):
        """dy (N, ..., C) -> dx like it."""
        dx, dgamma, dbeta = cache.backward(dy)
        self.weight.accumulate(dgamma)
        self.bias.accumulate(dbeta)
        return dx


class BatchNorm(Module):
    """y = γ x̂ + β, each channel normalised over the whole batch: (..., channels) -> the same shape.

    While `training`, by the mean and variance of the batch itself; otherwise by the running ones, which `track` keeps:
    a forward changes nothing.
    """

    momentum = 0.1  # how much of a batch goes into the running statistics

    def __init__(self, channels, eps=1e-5, init=1.0):
        self.weight, self.bias = Parameter((channels,), init), Parameter((channels,), 0.0)
        self.running_mean, self.running_var = Buffer((channels,), 0.0), Buffer((channels,), 1.0)
        self.eps, self.training = eps, True

    def forward(self, x):
        """x (..., C) -> y like x."""
        given = () if self.training else (self.running_mean.value, self.running_var.value)
        y, call = run(batch_norm, x, self.weight.value, self.bias.value, *given, eps=self.eps)
        return y, call and (call, x)

    def backward(self, dy, cache):
        """dy (..., C) -> dx like it."""
        dx, dgamma, dbeta = cache[0].backward(dy)
        self.weight.accumulate(dgamma)
        self.bias.accumulate(dbeta)
        return dx

    def track(self, cache):
        """Move the running statistics towards those of the batch that a forward of training left in `cache`.

        The running variance is the unbiased one, of a sum divided by count - 1 (Ioffe & Szegedy 2015, algorithm 2).
        """
        x = cache[1]
        count = x.size // x.shape[-1]
        mean, variance = channel_statistics(x)
        for buffer, batch in ((self.running_mean, mean), (self.running_var, variance * (count / max(count - 1, 1)))):
            buffer.data = (1 - self.momentum) * buffer.data + self.momentum * batch


class LayerNorm(Module):
    """y = γ x̂ + β, each row normalised by itself: (..., width) -> (..., width)."""

    def __init__(self, width, eps=1e-5):
        self.weight, self.bias = Parameter((width,), 1.0), Parameter((width,), 0.0)
        self.eps = eps

    def forward(self, x):
        """x (..., D) -> y like x."""
        return run(layer_norm, x, self.weight.value, self.bias.value, self.eps)

    def backward(self, dy, cache):
        """dy (..., D) -> dx like it."""
        dx, dgamma, dbeta = cache.backward(dy)
        self.weight.accumulate(dgamma)
        self.bias.accumulate(dbeta)
        return dx


class Embedding(Module):
    """A learned vector for each token: ids (N, L) -> (N, L, width)."""

    def __init__(self, vocabulary, width, deviation=0.02):
        self.weight = Parameter((vocabulary, width), ("normal", deviation))

    def forward(self, ids):
        """ids (N, L) integers -> y (N, L, D)."""
        return run(token_embedding, ids, self.weight.value)

    def backward(self, dy, cache):
        """dy (N, L, D). Adds to the weight's gradient; ids have none, so nothing is returned."""
        if not self.weight.frozen:
            self.weight.accumulate(cache.backward(dy))


class Stateless(Module):
    """An op without parameters, as a layer: Stateless(silu)."""

    def __init__(self, op):
        self.op = op

    def forward(self, x):
        """x -> y, as the op has it."""
        return run(self.op, x)

    def backward(self, dy, cache):
        """dy like y -> dx like x."""
        return cache.backward(dy)


class Identity(Module):
    """y = x: what a config leaves out."""

    def forward(self, x):
        """x -> y, which is x; the backward needs nothing of it."""
        return x, None

    def backward(self, dy, cache):
        """dy -> dx, which is dy."""
        return dy


IDENTITY = Identity()
SILU = Stateless(silu)
RELU, LEAKY_RELU = Stateless(relu), Stateless(leaky_relu)
MAX_POOL = Stateless(max_pool2d)
GEGLU = Stateless(geglu)
UPSAMPLE = Stateless(upsample_nearest)
ACTIVATIONS = {"silu": SILU, "swish": SILU, "gelu": Stateless(gelu), "quick_gelu": Stateless(quick_gelu)}
