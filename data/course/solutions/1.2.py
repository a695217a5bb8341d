"""The logarithms of the frequencies go in equal steps; t as a column times the frequencies is the table of angles."""

import math

from minild.backend import get_array_module


def timestep_embedding(t, dim, flip_sin_to_cos=True, freq_shift=0, max_period=10000):
    xp = get_array_module(t)
    half = dim // 2
    logarithms = xp.arange(half, dtype=t.dtype) * (-math.log(max_period) / (half - freq_shift))
    angles = t[:, None] * xp.exp(logarithms)  # N,half
    parts = [xp.cos(angles), xp.sin(angles)]
    if not flip_sin_to_cos:
        parts.reverse()
    if dim % 2:
        parts.append(xp.zeros((len(t), 1), t.dtype))
    return xp.concatenate(parts, axis=1), None
