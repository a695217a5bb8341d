"""Vector quantisation with a bounded number of distances in memory.

A 256 x 256 latent and 16384 codes are a billion distances.
"""

import numpy as np

from minild import ops
from minild.backend import get_array_module
from minild.ops.quantize import quantize_backward

__all__ = ["nearest_code", "quantize", "quantize_backward"]

DISTANCES = 1 << 20  # held at a time


def nearest_code(z, codebook):
    """`nearest_code`, some vectors at a time."""
    dtype = np.promote_types(z.dtype, np.float32)
    vectors, codebook = z.reshape(-1, z.shape[-1]).astype(dtype, copy=False), codebook.astype(dtype, copy=False)
    squares = (codebook * codebook).sum(axis=1)
    doubled = -2 * codebook.T
    rows, indices = max(1, DISTANCES // len(codebook)), []
    for start in range(0, len(vectors), rows):
        distances = vectors[start : start + rows] @ doubled
        distances += squares
        indices.append(distances.argmin(axis=1))
    return get_array_module(z).concatenate(indices).reshape(z.shape[:-1])


def quantize(z, codebook, beta=0.25):
    """`quantize` with that search."""
    return ops.quantize(z, codebook, beta, nearest_code)
