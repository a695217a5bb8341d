"""Random numbers, always drawn on the host: one generator a picture, so that a seed gives one picture everywhere."""

import numpy as np


def image_generators(seed, count):
    """One random generator an image: picture i of a batch draws as the picture of seed + i does alone."""
    return [np.random.default_rng(seed + i) for i in range(count)]


def standard_normal(generators, shape, dtype="float32"):
    """(N, *shape) unit-variance noise on the host, row i drawn from generators[i]."""
    return np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators]).astype(dtype, copy=False)


def slerp(a, b, share):
    """From noise a at share 0 to noise b at share 1, along the great circle between them (Shoemake 1985).

    (sin((1 - s) θ) a + sin(s θ) b) / sin θ, θ the angle between them: of unit variance all the way, where a straight
    line would lose half of it in the middle, and a model's picture with it. a, b: arrays of one shape, not of opposite
    directions.
    """
    cosine = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # as good as one direction
        return (1 - share) * a + share * b
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
