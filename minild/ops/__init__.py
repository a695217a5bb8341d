"""The textbook: pure functions in pairs, op(...) -> (y, cache) and op_backward(dy, cache) -> gradients.

Each is its formula and nothing else; minild.engine has the same ops fast. An op that is made of others takes them as
its last arguments, so that other pairs can stand in: `softmax` of attention. No op writes to an argument, and no
backward writes to dy or to the cache. N, H, W, C are images, height, width and channels; L and D are tokens and their
width.

All of them can be imported from here: from minild.ops import group_norm, group_norm_backward.
"""

from minild.ops.activation import (
    erf,
    geglu,
    geglu_backward,
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    quick_gelu,
    quick_gelu_backward,
    relu,
    relu_backward,
    require_geglu,
    sigmoid,
    silu,
    silu_backward,
    softmax,
    softmax_backward,
)
from minild.ops.attention import (
    attention,
    attention_backward,
    causal_mask,
    merge_heads,
    require_attention,
    split_heads,
)
from minild.ops.contrastive import contrastive, contrastive_backward, require_contrastive
from minild.ops.conv import col2im, conv2d, conv2d_backward, im2col, pad, require_conv2d
from minild.ops.embedding import (
    require_timesteps,
    require_token_embedding,
    timestep_embedding,
    timestep_embedding_backward,
    token_embedding,
    token_embedding_backward,
)
from minild.ops.linear import linear, linear_backward, require_linear
from minild.ops.loss import (
    cross_entropy,
    cross_entropy_backward,
    gaussian_cross_entropy,
    gaussian_cross_entropy_backward,
    gaussian_kl,
    gaussian_kl_backward,
    hinge,
    hinge_backward,
    l1,
    l1_backward,
    logistic,
    logistic_backward,
    mse,
    mse_backward,
    require_alike,
    require_moments,
    require_spread,
    require_target,
)
from minild.ops.norm import (
    batch_norm,
    batch_norm_backward,
    channel_statistics,
    group_norm,
    group_norm_backward,
    group_norm_silu,
    group_norm_silu_backward,
    layer_norm,
    layer_norm_backward,
    require_batch_norm,
    require_group_norm,
    require_layer_norm,
    unit_norm,
    unit_norm_backward,
)
from minild.ops.pool import max_pool2d, max_pool2d_backward, require_max_pool
from minild.ops.quantize import nearest_code, quantize, quantize_backward, require_quantize
from minild.ops.resample import require_map, upsample_nearest, upsample_nearest_backward
