"""The root of β grows in equal steps, from the root of the first to the root of the last."""

import numpy as np


def scaled_linear_betas(start, end, steps):
    return np.linspace(np.sqrt(start), np.sqrt(end), steps) ** 2
