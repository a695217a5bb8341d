"""A data set's pictures and captions in memory."""

import numpy as np


def gather(dataset, limit=None):
    """The first `limit` items (all if None) -> (N, H, W, 3) uint8, and a list of N tuples of true captions."""
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return np.stack([dataset[i][0] for i in range(count)]), [dataset.captions(i) for i in range(count)]
