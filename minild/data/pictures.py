"""Pictures in memory."""

import numpy as np


def to_signed(pictures):
    """Pictures in uint8 -> float32 in [-1, 1], the range of the autoencoder."""
    return pictures.astype(np.float32) / 127.5 - 1


def gather(dataset, limit=None):
    """The first `limit` items (all if None) -> (N, H, W, 3) uint8, and a list of N tuples of true captions."""
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return np.stack([dataset[i][0] for i in range(count)]), [dataset.captions(i) for i in range(count)]
