"""Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, equation 1)."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.activation import softmax, softmax_backward
from minild.ops.validate import require_like, require_rank, require_shape


class AttentionCache(NamedTuple):
    q: Any  # N,heads,Lq,d
    k: Any  # N,heads,Lk,d
    v: Any  # N,heads,Lk,d
    weights: Any  # N,heads,Lq,Lk: how much each query takes of each value
    softmax: Any


def require_attention(q, k, v, heads, causal=False):
    """ValueError unless the arguments of `attention` fit each other."""
    require_rank("q", q, 3, "(N, L, D)")
    N, Lq, D = q.shape
    require_shape("k", k, (N, None, D))
    require_shape("v", v, k.shape)
    require_like("k", k, "q", q)
    require_like("v", v, "q", q)
    if D % heads:
        raise ValueError(f"heads: expected a divisor of the width {D} of q, got {heads}")
    if causal and Lq != k.shape[1]:
        raise ValueError(f"k: expected {Lq} tokens like q for causal attention, got shape {k.shape}")


def split_heads(x, heads):
    """(N, L, D) -> (N, heads, L, D / heads), a view."""
    N, L, D = x.shape
    return x.reshape(N, L, heads, D // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(N, heads, L, d) -> (N, L, heads · d)."""
    N, heads, L, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(N, L, heads * d)


def causal_mask(scores):
    """(L, L): 0 on and under the diagonal, -inf above it, in the dtype and on the device of `scores` (..., L, L)."""
    xp = get_array_module(scores)
    return xp.triu(xp.full(scores.shape[-2:], -math.inf, scores.dtype), 1)


def attention(q, k, v, heads, causal=False, softmax=softmax):
    """y = softmax(q kᵀ / √d) v in each of `heads` slices of the width, d = D / heads.

    q (N, Lq, D), k and v (N, Lk, D) -> y (N, Lq, D). Self-attention has q, k, v of the same tokens, cross-attention
    k and v of the context. With `causal`, query i sees keys 0..i only (Lq = Lk).
    Raises ValueError if `heads` does not divide D, or for a shape or dtype that does not fit.
    """
    require_attention(q, k, v, heads, causal)
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # N,heads,Lq,Lk
    if causal:
        scores = scores + causal_mask(scores)
    weights, softmax_cache = softmax(scores)
    return merge_heads(weights @ v), AttentionCache(q, k, v, weights, softmax_cache)


def attention_backward(dy, cache, softmax_backward=softmax_backward):
    """dy (N, Lq, D) -> dq, dk, dv.

    Through the mixture weights @ v, through the softmax, and through the scores q kᵀ / √d. A masked score has weight
    0, and softmax's backward gives it gradient 0.
    """
    q, k, v, weights, softmax_cache = cache
    dy = split_heads(dy, q.shape[1])
    dweights = dy @ v.swapaxes(-1, -2)
    dv = weights.swapaxes(-1, -2) @ dy
    dscores = softmax_backward(dweights, softmax_cache) / math.sqrt(q.shape[-1])
    dq = dscores @ k
    dk = dscores.swapaxes(-1, -2) @ q
    return merge_heads(dq), merge_heads(dk), merge_heads(dv)
