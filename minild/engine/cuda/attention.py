"""Attention on the GPU in tiles, forward and backward, without the scores."""

import math
from typing import Any, NamedTuple

import numpy as np

from minild.backend import get_array_module
from minild.engine.cuda import dense, launch

TILE = 64  # queries, and keys, that a block works on at once
BLOCK = (16, 16)
WIDEST = 160  # of a head: beyond, the sums of a thread do not fit its registers


class AttentionCache(NamedTuple):
    q: Any  # N,Lq,D
    k: Any  # N,Lk,D
    v: Any  # N,Lk,D
    y: Any  # N,Lq,D
    log_sums: Any  # N,heads,Lq: of the exponentials of each query's scores, float32
    causal: bool


def _slices(width):
    return -(-width // BLOCK[0])


def narrow(q, k, v, heads, causal=False):
    """Whether a head is narrow enough for the kernels."""
    return q.shape[2] // heads <= WIDEST


def attention(q, k, v, heads, causal=False):
    """`attention`."""
    xp = get_array_module(q)
    q, k, v = dense(q, q), dense(k, q), dense(v, q)
    N, Lq, D = q.shape
    y, log_sums = xp.empty_like(q), xp.empty((N, heads, Lq), np.float32)
    width = D // heads
    launch("attention", "attention", q, (-(-Lq // TILE), heads, N), BLOCK,
           q, k, v, y, log_sums, Lq, k.shape[1], width, 1 / math.sqrt(width), int(causal), SLICES=_slices(width))
    return y, AttentionCache(q, k, v, y, log_sums, causal)


def attention_backward(dy, cache):
    """dy (N, Lq, D) -> dq, dk, dv."""
    q, k, v, y, log_sums, causal = cache
    xp = get_array_module(q)
    dy = dense(dy, q)
    (N, heads, Lq), Lk, width = log_sums.shape, k.shape[1], q.shape[2] // log_sums.shape[1]
    dots, dq, dk, dv = xp.empty_like(log_sums), xp.empty_like(q), xp.empty_like(k), xp.empty_like(v)
    settings = Lq, Lk, width, 1 / math.sqrt(width), int(causal)
    slices = _slices(width)
    launch("attention", "attention_dots", q, (-(-Lq // 8), heads, N), (32, 8), dy, y, dots, Lq, width, SLICES=slices)
    launch("attention", "attention_dq", q, (-(-Lq // TILE), heads, N), BLOCK,
           dy, q, k, v, log_sums, dots, dq, *settings, SLICES=slices)
    launch("attention", "attention_dk_dv", q, (-(-Lk // TILE), heads, N), BLOCK,
           dy, q, k, v, log_sums, dots, dk, dv, *settings, SLICES=slices)
    return dq, dk, dv
