"""Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, equation 1)."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module, on_all_cores, pieces, workspace
from minild.ops import kernels
from minild.ops.activation import SoftmaxCache, exp_shifted, softmax, softmax_backward
from minild.ops.kernels import attention as attention_kernels
from minild.ops.reduce import sum_columns
from minild.ops.validate import require_like, require_rank, require_shape

KEPT = 1 << 21  # scores that a call may keep for its backward: more than that are computed again, slice by slice
LEAST_QUERIES = 256  # in a slice: with fewer, reading the keys takes longer than the product


class AttentionCache(NamedTuple):
    q: Any  # N,heads,Lq,d
    k: Any  # N,heads,Lk,d
    v: Any  # N,heads,Lk,d
    softmax: Any  # SoftmaxCache of N,heads,Lq,Lk; None where they are too many to keep
    causal: bool


def split_heads(x, heads):
    """(N, L, D) -> (N, heads, L, D / heads), a view."""
    N, L, D = x.shape
    return x.reshape(N, L, heads, D // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(N, heads, L, d) -> (N, L, heads · d)."""
    N, heads, L, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(N, L, heads * d)


def attention(q, k, v, heads, causal=False):
    """y = softmax(q kᵀ / √d) v in each of `heads` slices of the width, d = D / heads.

    q (N, Lq, D), k and v (N, Lk, D) -> y (N, Lq, D). Self-attention has q, k, v of the same tokens, cross-attention
    k and v of the context. With `causal`, query i sees keys 0..i only (Lq = Lk).
    Raises ValueError if `heads` does not divide D, or for a shape or dtype that does not fit.
    """
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
    if kernels.serve(q) and D // heads <= attention_kernels.WIDEST:
        return attention_kernels.attention(q, k, v, heads, causal)
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    if N * heads * Lq * k.shape[2] > KEPT:
        return _attention_in_slices(q, k, v, causal), AttentionCache(q, k, v, None, causal)
    scores = (q / math.sqrt(D // heads)) @ k.swapaxes(-1, -2)  # N,heads,Lq,Lk
    if causal:
        scores += causal_mask(scores)
    weights, softmax_cache = softmax(scores)
    return merge_heads(weights @ v), AttentionCache(q, k, v, softmax_cache, causal)


def causal_mask(scores, first=0):
    """(L, Lk): 0 on and under the diagonal, -inf above it, in the dtype and on the device of `scores` (..., L, Lk).

    `first` is the number of the query in the first row.
    """
    xp = get_array_module(scores)
    return xp.triu(xp.full(scores.shape[-2:], -math.inf, scores.dtype), first + 1)


def _slices(q, k):
    """(n, head, queries) for which the scores are one piece of work."""
    N, heads, Lq, _ = q.shape
    parts = pieces(Lq, k.shape[2], q, LEAST_QUERIES)
    return [(n, head, part) for n in range(N) for head in range(heads) for part in parts]


def _exp_scores(q, k, index, causal):
    """exp of a slice's scores, each row times a number of its own: (queries, Lk), in workspace."""
    n, head, part = index
    xp = get_array_module(q)
    queries = q[index] / math.sqrt(q.shape[3])
    scores = xp.matmul(queries, k[n, head].T, out=workspace("scores", (len(queries), k.shape[2]), q))
    if causal:
        scores += causal_mask(scores, part.start)
    return exp_shifted(scores, out=scores)


def _attention_in_slices(q, k, v, causal):
    """softmax(q kᵀ / √d) v -> (N, Lq, D), with no more than a slice of the scores in memory at a time."""
    N, heads, Lq, d = q.shape
    y = get_array_module(q).empty((N, Lq, heads * d), q.dtype)
    by_head = split_heads(y, heads)

    def mix(index):
        weights = _exp_scores(q, k, index, causal)
        mixed = weights @ v[index[:2]]
        mixed /= sum_columns(weights)  # rather than the weights, which are more
        by_head[index] = mixed

    on_all_cores(mix, _slices(q, k))
    return y


def attention_backward(dy, cache):
    """dy (N, Lq, D) -> dq, dk, dv.

    Through the mixture: dweights = dy vᵀ, dv = weightsᵀ dy; through the softmax; through the scores q kᵀ / √d.
    A masked score has weight 0, and softmax's backward gives it gradient 0.
    """
    if isinstance(cache, attention_kernels.AttentionCache):
        return attention_kernels.attention_backward(dy, cache)
    q, k, v, softmax_cache, causal = cache
    if softmax_cache is None:
        return _backward_in_slices(dy, q, k, v, causal)
    heads, d = q.shape[1], q.shape[3]
    dy = split_heads(dy, heads)
    dv = softmax_cache.y.swapaxes(-1, -2) @ dy
    dscores = softmax_backward(dy @ v.swapaxes(-1, -2), softmax_cache)
    dscores /= math.sqrt(d)
    dq = dscores @ k
    dk = dscores.swapaxes(-1, -2) @ q
    return merge_heads(dq), merge_heads(dk), merge_heads(dv)


def _backward_in_slices(dy, q, k, v, causal):
    """The same of one slice of the scores at a time, each computed once more."""
    xp = get_array_module(dy)
    heads, d = q.shape[1], q.shape[3]
    dy = split_heads(dy, heads)
    dq, dk, dv = (xp.zeros((len(x), x.shape[2], heads * d), x.dtype) for x in (q, k, v))
    dq_heads, dk_heads, dv_heads = (split_heads(x, heads) for x in (dq, dk, dv))
    for index in _slices(q, k):
        of_head = index[:2]
        weights = _exp_scores(q, k, index, causal)
        weights /= sum_columns(weights)
        dv_heads[of_head] += weights.T @ dy[index]
        dscores = softmax_backward(dy[index] @ v[of_head].T, SoftmaxCache(weights))
        dscores /= math.sqrt(d)
        dq_heads[index] = dscores @ k[of_head]
        dk_heads[of_head] += dscores.T @ q[index]
    return dq, dk, dv
