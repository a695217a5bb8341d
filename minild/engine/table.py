"""The table: for every op its textbook page, and the faster ways to compute it.

Asked once a call. The first fast way that serves the call's arguments (device, dtype, shape) is taken; the textbook
where none does. `tolerance` is how far y and every gradient may be from the textbook's, relative to the largest value,
in float32: tests/engine/test_table.py holds each row to it. Direct sums in another order differ by rounding; Winograd's
transforms round a few times more.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from minild import ops
from minild.engine import cuda
from minild.engine.cpu import activation, attention, conv, linear, norm, quantize, resample, winograd
from minild.engine.cuda import activation as cuda_activation
from minild.engine.cuda import attention as cuda_attention
from minild.engine.cuda import norm as cuda_norm
from minild.engine.cuda import winograd as cuda_winograd


class Fast(NamedTuple):
    """A faster pair with the contract of an op's, and when it serves: serves(*arguments) of the op -> bool."""

    op: Callable
    op_backward: Callable
    serves: Callable
    tolerance: float = 1e-5
    inference: Callable | None = None  # what to call instead where no backward follows


class Op(NamedTuple):
    """An op of minild.ops: the textbook pair, the check of its arguments, the faster pairs, and what it is made of.

    parts: names of ops that `op` and `op_backward` take as arguments of these names (and of these names + "_backward").
    """

    op: Callable
    op_backward: Callable
    require: Callable
    fast: tuple = ()
    parts: tuple = ()

    def implementation(self, arguments, settings):
        """The first fast pair that serves these arguments, or None."""
        return next((fast for fast in self.fast if fast.serves(*arguments, **settings)), None)


def on_host(x, *_, **__):
    """NumPy's arrays, of any dtype; pieces of nothing are left to the textbook."""
    return isinstance(x, np.ndarray) and x.size > 0 and x.ndim > 0


def on_gpu(x, *_, **__):
    """CuPy's arrays of float32 or float16: those that the CUDA kernels are written for."""
    return cuda.has_kernels(x)


def anywhere(x, *_, **__):
    """Any arrays that hold something."""
    return x.size > 0


def nothing_to_check(*_, **__):
    """For ops that take an array of any shape."""


def by_winograd_on_host(x, *arguments, **settings):
    """Float32 alone, because checks in float64 are to be exact."""
    return on_host(x) and x.dtype == np.float32 and winograd.pays(x, *arguments, **settings)


def by_winograd_on_gpu(x, *arguments, **settings):
    """Float32 alone: float16 has too few digits. With CUPY_TF32=1 im2col runs on tensor cores, faster."""
    suits = on_gpu(x) and x.dtype == np.float32 and os.environ.get("CUPY_TF32") != "1"
    return suits and winograd.pays(x, *arguments, **settings)


def few_scores_on_host(q, *arguments, **settings):
    """Where keeping all scores costs less than computing them again."""
    return on_host(q) and attention.few_scores(q, *arguments, **settings)


def many_scores(*arguments, **settings):
    """Anywhere: on a GPU, too, heads that are too wide for its kernels must not keep all scores."""
    return not attention.few_scores(*arguments, **settings)


def narrow_on_gpu(q, *arguments, **settings):
    """Where a head fits the registers of the attention kernels."""
    return on_gpu(q) and cuda_attention.narrow(q, *arguments, **settings)


def _elementwise(name):
    """The row of an activation: a pair of that name in ops, engine.cuda and engine.cpu."""
    pairs = [(getattr(m, name), getattr(m, f"{name}_backward")) for m in (ops, cuda_activation, activation)]
    textbook, gpu, host = pairs
    return Op(*textbook, nothing_to_check, (Fast(*gpu, on_gpu), Fast(*host, on_host)))


OPS = {
    "linear": Op(
        ops.linear,
        ops.linear_backward,
        ops.require_linear,
        (Fast(linear.linear, linear.linear_backward, on_host),),  # sums as products
    ),
    "conv2d": Op(
        ops.conv2d,
        ops.conv2d_backward,
        ops.require_conv2d,
        (
            Fast(conv.conv2d_product, conv.conv2d_product_backward, conv.is_product),  # 1 x 1, anywhere
            Fast(cuda_winograd.conv2d, cuda_winograd.conv2d_backward, by_winograd_on_gpu, 1e-4),
            Fast(
                winograd.conv2d,
                winograd.conv2d_backward,
                by_winograd_on_host,
                1e-4,
                inference=partial(winograd.conv2d, keep=False),
            ),
            Fast(conv.conv2d, conv.conv2d_backward, anywhere),  # patches, a piece at a time
        ),
    ),
    "group_norm": Op(
        ops.group_norm,
        ops.group_norm_backward,
        ops.require_group_norm,
        (
            Fast(cuda_norm.group_norm, cuda_norm.group_norm_backward, on_gpu),
            Fast(norm.group_norm, norm.group_norm_backward, on_host),
        ),
    ),
    "group_norm_silu": Op(
        ops.group_norm_silu,
        ops.group_norm_silu_backward,
        ops.require_group_norm,
        (
            Fast(cuda_norm.group_norm_silu, cuda_norm.group_norm_backward, on_gpu),  # its cache tells of the SiLU
            Fast(
                norm.group_norm_silu,
                norm.group_norm_silu_backward,
                on_host,
                inference=partial(norm.group_norm_silu, keep=False),
            ),
        ),
        parts=("group_norm", "silu"),
    ),
    "layer_norm": Op(
        ops.layer_norm,
        ops.layer_norm_backward,
        ops.require_layer_norm,
        (
            Fast(cuda_norm.layer_norm, cuda_norm.layer_norm_backward, on_gpu),
            Fast(norm.layer_norm, norm.layer_norm_backward, on_host),
        ),
    ),
    "batch_norm": Op(ops.batch_norm, ops.batch_norm_backward, ops.require_batch_norm),
    "unit_norm": Op(ops.unit_norm, ops.unit_norm_backward, nothing_to_check),
    "relu": Op(ops.relu, ops.relu_backward, nothing_to_check),
    "leaky_relu": Op(ops.leaky_relu, ops.leaky_relu_backward, nothing_to_check),
    "silu": _elementwise("silu"),
    "quick_gelu": _elementwise("quick_gelu"),
    "gelu": _elementwise("gelu"),
    "geglu": _elementwise("geglu")._replace(require=ops.require_geglu, parts=("gelu",)),
    "softmax": Op(
        ops.softmax,
        ops.softmax_backward,
        nothing_to_check,
        (Fast(activation.softmax, activation.softmax_backward, on_host),),
    ),
    "attention": Op(
        ops.attention,
        ops.attention_backward,
        ops.require_attention,
        (
            Fast(cuda_attention.attention, cuda_attention.attention_backward, narrow_on_gpu),
            Fast(attention.attention, attention.attention_backward, few_scores_on_host),
            Fast(attention.sliced_attention, attention.sliced_attention_backward, many_scores),
        ),
        parts=("softmax",),
    ),
    "max_pool2d": Op(ops.max_pool2d, ops.max_pool2d_backward, ops.require_max_pool),
    "upsample_nearest": Op(
        ops.upsample_nearest,
        ops.upsample_nearest_backward,
        ops.require_map,
        (Fast(resample.upsample_nearest, resample.upsample_nearest_backward, on_host),),
    ),
    "token_embedding": Op(
        ops.token_embedding, ops.token_embedding_backward, ops.require_token_embedding
    ),
    "timestep_embedding": Op(
        ops.timestep_embedding, ops.timestep_embedding_backward, ops.require_timesteps
    ),
    "quantize": Op(
        ops.quantize,
        ops.quantize_backward,
        ops.require_quantize,
        (Fast(quantize.quantize, quantize.quantize_backward, anywhere),),  # bounded memory
    ),
    "mse": Op(ops.mse, ops.mse_backward, ops.require_alike),
    "l1": Op(ops.l1, ops.l1_backward, ops.require_alike),
    "hinge": Op(ops.hinge, ops.hinge_backward, ops.require_target),
    "logistic": Op(ops.logistic, ops.logistic_backward, ops.require_target),
    "gaussian_kl": Op(ops.gaussian_kl, ops.gaussian_kl_backward, ops.require_moments),
    "contrastive": Op(ops.contrastive, ops.contrastive_backward, ops.require_contrastive),
    "gaussian_cross_entropy": Op(ops.gaussian_cross_entropy, ops.gaussian_cross_entropy_backward, ops.require_spread),
}

NAMES = {op.op: name for name, op in OPS.items()}  # of the textbook functions
