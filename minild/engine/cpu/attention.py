"""Attention with its scores kept, where they are few; and in slices of queries that fit the cache, where they are many.

4,096 tokens have 16 million scores a head: more than a picture is worth keeping. Each slice's are made, used and
forgotten, and made once more by the backward.
"""

import math
from typing import Any, NamedTuple

from minild import ops
from minild.backend import get_array_module
from minild.engine.cores import on_all_cores
from minild.engine.cpu.activation import exp_shifted, softmax, softmax_backward
from minild.engine.cpu.sums import sum_columns
from minild.engine.memory import row_pieces, workspace
from minild.ops.activation import SoftmaxCache
from minild.ops.attention import AttentionCache as TextbookCache
from minild.ops.attention import causal_mask, merge_heads, split_heads

KEPT = 1 << 21  # scores that a call may keep for its backward
LEAST_QUERIES = 256  # in a slice: with fewer, reading the keys takes longer than the product


def few_scores(q, k, v, heads, causal=False):
    """Whether all scores are few enough to be kept."""
    return q.shape[0] * heads * q.shape[1] * k.shape[1] <= KEPT


class AttentionCache(NamedTuple):
    q: Any  # N,heads,Lq,d
    k: Any  # N,heads,Lk,d
    v: Any  # N,heads,Lk,d
    softmax: Any  # SoftmaxCache of N,heads,Lq,Lk


def attention(q, k, v, heads, causal=False):
    """`attention`, the queries divided by √d rather than the scores, which are more."""
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    scores = (q / math.sqrt(q.shape[3])) @ k.swapaxes(-1, -2)  # N,heads,Lq,Lk
    if causal:
        scores += causal_mask(scores)
    weights, softmax_cache = softmax(scores)
    return merge_heads(weights @ v), AttentionCache(q, k, v, softmax_cache)


def attention_backward(dy, cache):
    """dy (N, Lq, D) -> dq, dk, dv."""
    q, k, v, softmax_cache = cache
    return ops.attention_backward(dy, TextbookCache(q, k, v, softmax_cache.y, softmax_cache), softmax_backward)


class SlicedCache(NamedTuple):
    q: Any  # N,heads,Lq,d
    k: Any  # N,heads,Lk,d
    v: Any  # N,heads,Lk,d
    causal: bool


def _slices(q, k):
    """(n, head, queries) for which the scores are one piece of work."""
    N, heads, Lq, _ = q.shape
    pieces = row_pieces(Lq, k.shape[2], q, LEAST_QUERIES)
    return [(n, head, piece) for n in range(N) for head in range(heads) for piece in pieces]


def _exp_scores(q, k, index, causal):
    """exp of a slice's scores, each row times a number of its own: (queries, Lk), in workspace."""
    n, head, piece = index
    xp = get_array_module(q)
    queries = q[index] / math.sqrt(q.shape[3])
    scores = xp.matmul(queries, k[n, head].T, out=workspace("scores", (len(queries), k.shape[2]), q))
    if causal:  # the first row is query piece.start
        scores += xp.triu(xp.full(scores.shape, -math.inf, scores.dtype), piece.start + 1)
    return exp_shifted(scores, out=scores)


def sliced_attention(q, k, v, heads, causal=False):
    """`attention` with no more than a slice of the scores in memory at a time."""
    N, Lq, D = q.shape
    y = get_array_module(q).empty((N, Lq, D), q.dtype)
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    by_head = split_heads(y, heads)

    def mix(index):
        weights = _exp_scores(q, k, index, causal)
        mixed = weights @ v[index[:2]]
        mixed /= sum_columns(weights)  # rather than the weights, which are more
        by_head[index] = mixed

    on_all_cores(mix, _slices(q, k))
    return y, SlicedCache(q, k, v, causal)


def sliced_attention_backward(dy, cache):
    """dy (N, Lq, D) -> dq, dk, dv, each slice's scores computed once more."""
    q, k, v, causal = cache
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
