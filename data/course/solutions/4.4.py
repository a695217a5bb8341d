"""In every head, each query is compared with each key; softmax makes weights of that, and these mix the values."""

import math

from minild.ops.activation import softmax
from minild.ops.attention import causal_mask, merge_heads, split_heads


def attention(q, k, v, heads, causal=False):
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)  # N,heads,L,d
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # N,heads,Lq,Lk
    if causal:
        scores = scores + causal_mask(scores)
    weights, _ = softmax(scores)
    return merge_heads(weights @ v), None
