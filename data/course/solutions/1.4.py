"""One draw for each picture, from its own generator; drawn as float32, because float64 would be other numbers."""

import numpy as np


def standard_normal(generators, shape, dtype="float32"):
    noise = [generator.standard_normal(shape, dtype=np.float32) for generator in generators]
    return np.stack(noise).astype(dtype)
