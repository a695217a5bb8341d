"""Vector quantisation (van den Oord et al. 2017, arXiv 1711.00937, section 3)."""

from typing import Any, NamedTuple

import numpy as np

from minild.ops.embedding import token_embedding, token_embedding_backward
from minild.ops.validate import require_like, require_shape


def require_quantize(z, codebook, beta=0.25):
    """ValueError unless the arguments of `quantize` fit each other."""
    require_shape("codebook", codebook, (None, z.shape[-1]))
    require_like("codebook", codebook, "z", z)


def nearest_code(z, codebook):
    """The index of the codebook entry nearest to each vector, the first of equally near ones (equation 1).

    z (..., D), codebook (K, D) -> indices (...). ‖z - e‖² = ‖z‖² - 2 z·e + ‖e‖², where ‖z‖² is the same for every e and
    left out; in float32 at least. Raises ValueError for a shape or dtype that does not fit.
    """
    require_quantize(z, codebook)
    dtype = np.promote_types(z.dtype, np.float32)
    z, codebook = z.astype(dtype, copy=False), codebook.astype(dtype, copy=False)
    distances = (codebook * codebook).sum(axis=1) - 2 * z @ codebook.T  # ...,K
    return distances.argmin(axis=-1)


class QuantizeCache(NamedTuple):
    difference: Any  # z - e
    lookup: Any  # of the codebook's rows
    beta: float


def quantize(z, codebook, beta=0.25, nearest_code=nearest_code):
    """z_q = e, the codebook entry nearest to z, and the loss mean ‖sg[z] - e‖² + β · mean ‖z - sg[e]‖² (equation 3).

    z (..., D), codebook (K, D) -> (z_q like z, the loss: a scalar on the device, mean over all elements of z). The
    first term draws the codes to the latents, the second, the commitment, the latents to the codes; sg, "stop
    gradient", is the identity, so the forward only sees (1 + β) · mean (z - e)².
    Raises ValueError for a shape or dtype that does not fit.
    """
    e, lookup = token_embedding(nearest_code(z, codebook), codebook)
    difference = z - e
    loss = (difference * difference).mean() * (1 + beta)
    return (e, loss), QuantizeCache(difference, lookup, beta)


def quantize_backward(dy, cache):
    """dy = (dz_q like z, dloss a number) -> dz, dcodebook (K, D).

    The choice of a code has no slope, so dz_q passes straight through to z, as if z_q were z + sg[e - z]. To the
    codebook goes the first term of the loss alone.
    """
    dz_q, dloss = dy
    difference, lookup, beta = cache
    slope = difference * (dloss * 2 / difference.size)
    dz = dz_q + beta * slope  # straight through, and the commitment
    return dz, token_embedding_backward(-slope, lookup)
