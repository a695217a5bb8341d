"""y = x · gate, gate = σ(x): by the product rule, gate + x · (slope of the gate); that slope is gate · (1 - gate)."""

import numpy as np


def silu_backward(dy, cache):
    gate = 1 / (1 + np.exp(-cache.x))
    return dy * (gate + cache.x * gate * (1 - gate))
