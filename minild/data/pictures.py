"""Pictures in memory."""

import sys

import numpy as np

from minild.shown import shown

SHOWN = 10  # skipped pictures named one by one


def to_signed(pictures):
    """Pictures in uint8 -> float32 in [-1, 1], the range of the autoencoder."""
    return pictures.astype(np.float32) / 127.5 - 1


def spread(dataset, limit=None):
    """The numbers of all items, or of `limit` evenly spread over them."""
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return [i * len(dataset) // count for i in range(count)]


def gather(dataset, limit=None):
    """All items, or `limit` evenly spread over them -> (N, H, W, 3) uint8, and a list of N tuples of true captions."""
    rows = spread(dataset, limit)
    return np.stack([dataset[i][0] for i in rows]), [dataset.captions(i) for i in rows]


def tell_skipped(dataset):
    """Say on stderr what a folder gives notice of and, once it is read, which of its pictures were left out."""
    for line in getattr(dataset, "notices", []):
        print(shown(f"minild: {line}"), file=sys.stderr)
    skipped = getattr(dataset, "skipped", [])
    for path, reason in skipped[:SHOWN]:
        print(shown(f"minild: skipped {path}: {reason}"), file=sys.stderr)
    if skipped:
        print(shown(f"minild: {len(skipped)} skipped, {len(dataset)} kept, in {dataset.name}"), file=sys.stderr)
