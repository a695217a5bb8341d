"""Noise of deviation 1 is stretched and moved; the deviation is exp(logvar / 2), for a root halves a logarithm."""

import numpy as np


def reparameterize(posterior, noise):
    deviation = np.exp(posterior.logvar / 2)
    return posterior.mean + deviation * noise, None
