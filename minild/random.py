"""Random numbers, always drawn on the host: one generator a picture, so that a seed gives one picture everywhere."""

import numpy as np


def image_generators(seed, count):
    """One random generator an image: picture i of a batch draws as the picture of seed + i does alone."""
    return [np.random.default_rng(seed + i) for i in range(count)]


def standard_normal(generators, shape, dtype="float32"):
    """(N, *shape) unit-variance noise on the host, row i drawn from generators[i]."""
    return np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators]).astype(dtype, copy=False)
