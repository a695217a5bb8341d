"""Batch norm over a batch that is shared among ranks: its statistics are those of the whole batch."""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.norm import require_batch_norm


class SharedBatchNormCache(NamedTuple):
    xhat: Any  # like x
    gamma: Any
    rstd: Any  # C
    count: Any  # of the places of the whole batch


def shared_batch_norm(ranks):
    """(op, op_backward) in place of ops.batch_norm while a discriminator is trained: x is this rank's part of a batch.

    The same sums as there, each taken over all ranks: in the forward that of x and then that of the squares, in the
    backward those of dx̂ and of dx̂ · x̂. dgamma and dbeta are of this rank's part, as every gradient that the ranks add
    up later.
    """

    def forward(x, gamma, beta, mean=None, variance=None, eps=1e-5):
        require_batch_norm(x, gamma, beta, mean, variance, eps)
        xp, axes = get_array_module(x), tuple(range(x.ndim - 1))
        total = xp.full(x.shape[-1] + 1, x.size // x.shape[-1], x.dtype)  # of each channel, and how many they are
        total[:-1] = x.sum(axis=axes)
        ranks.sum(total)
        count = total[-1]
        centred = x - total[:-1] / count
        squares = (centred * centred).sum(axis=axes)
        ranks.sum(squares)
        rstd = 1 / xp.sqrt(squares / count + eps)
        xhat = centred * rstd
        return gamma * xhat + beta, SharedBatchNormCache(xhat, gamma, rstd, count)

    def backward(dy, cache):
        xhat, gamma, rstd, count = cache
        xp, axes = get_array_module(dy), tuple(range(dy.ndim - 1))
        dgamma, dbeta = (dy * xhat).sum(axis=axes), dy.sum(axis=axes)
        sums = xp.stack([gamma * dbeta, gamma * dgamma])
        ranks.sum(sums)
        through_mean, through_variance = sums / count
        return rstd * (gamma * dy - through_mean - xhat * through_variance), dgamma, dbeta

    return forward, backward
