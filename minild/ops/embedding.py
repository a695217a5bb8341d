"""Token embedding, and the sinusoidal embedding of the timestep."""

import math
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.validate import require_integers, require_rank


class TokenEmbeddingCache(NamedTuple):
    ids: Any
    vocabulary: int


def require_token_embedding(ids, weight):
    """ValueError unless the arguments of `token_embedding` fit each other."""
    require_integers("ids", ids)
    require_rank("weight", weight, 2, "(V, D)")


def token_embedding(ids, weight):
    """y[...] = weight[ids[...]]: ids (N, L) integers, weight (V, D) -> y (N, L, D).

    Raises ValueError for ids that are not integers. Ids outside 0..V-1 are the caller's error: looking would cost a
    wait for the device.
    """
    require_token_embedding(ids, weight)
    return weight[ids], TokenEmbeddingCache(ids, weight.shape[0])


def token_embedding_backward(dy, cache):
    """dy (N, L, D) -> dweight (V, D): row i sums dy over the places where token i stood."""
    xp = get_array_module(dy)
    dweight = xp.zeros((cache.vocabulary, dy.shape[-1]), dy.dtype)
    xp.add.at(dweight, cache.ids.reshape(-1), dy.reshape(-1, dy.shape[-1]))
    return dweight


class TimestepEmbeddingCache(NamedTuple):
    angles: Any
    frequencies: Any
    flip_sin_to_cos: bool


def require_timesteps(t, *_, **__):
    """ValueError unless `t` is an array (N,)."""
    require_rank("t", t, 1, "(N,)")


def timestep_embedding(t, dim, flip_sin_to_cos=True, freq_shift=0, max_period=10000):
    """[cos(t ω_i) | sin(t ω_i)], ω_i = max_period^(-i / (dim/2 - freq_shift)), or [sin | cos] unless flip_sin_to_cos.

    t (N,) floating-point timesteps -> y (N, dim), whose last column is zero if dim is odd.
    Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B.
    """
    require_timesteps(t)
    xp = get_array_module(t)
    half = dim // 2
    exponents = xp.arange(half, dtype=t.dtype) * (-math.log(max_period) / (half - freq_shift))
    frequencies = xp.exp(exponents)
    angles = t[:, None] * frequencies
    parts = [xp.cos(angles), xp.sin(angles)] if flip_sin_to_cos else [xp.sin(angles), xp.cos(angles)]
    parts += [xp.zeros_like(t)[:, None]] * (dim % 2)
    return xp.concatenate(parts, axis=1), TimestepEmbeddingCache(angles, frequencies, flip_sin_to_cos)


def timestep_embedding_backward(dy, cache):
    """dy (N, dim) -> dt (N,): d cos = -ω sin, d sin = ω cos."""
    angles, frequencies, flip_sin_to_cos = cache
    xp = get_array_module(dy)
    half = angles.shape[1]
    first, second = dy[:, :half], dy[:, half : 2 * half]
    dcos, dsin = (first, second) if flip_sin_to_cos else (second, first)
    return (frequencies * (dsin * xp.cos(angles) - dcos * xp.sin(angles))).sum(axis=1)
