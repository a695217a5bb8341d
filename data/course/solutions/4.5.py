"""The forward from its end: C = A B gives dA = dC Bᵀ and dB = Aᵀ dC, twice, with softmax's backward between."""

import math

from minild.ops.activation import softmax_backward
from minild.ops.attention import merge_heads, split_heads


def attention_backward(dy, cache):
    q, k, v, weights, softmax_cache = cache
    dy = split_heads(dy, q.shape[1])  # N,heads,Lq,d
    dweights = dy @ v.swapaxes(-1, -2)
    dv = weights.swapaxes(-1, -2) @ dy
    dscores = softmax_backward(dweights, softmax_cache) / math.sqrt(q.shape[-1])
    dq = dscores @ k
    dk = dscores.swapaxes(-1, -2) @ q
    return merge_heads(dq), merge_heads(dk), merge_heads(dv)
