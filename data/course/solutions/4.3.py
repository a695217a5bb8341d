"""Key j comes later than query i where j > i: strictly above the diagonal."""

import numpy as np


def causal_mask(scores):
    closed = np.full(scores.shape[-2:], -np.inf, scores.dtype)
    return np.triu(closed, 1)
