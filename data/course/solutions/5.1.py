"""In the shape (N, P, groups, C / groups) the numbers that share a mean are two whole axes, 1 and 3."""

import numpy as np


def group_norm(x, gamma, beta, groups, eps=1e-5):
    grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    xhat = ((grouped - mean) / np.sqrt(variance + eps)).reshape(x.shape)
    return gamma * xhat + beta, None
