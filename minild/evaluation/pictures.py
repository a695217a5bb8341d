"""Pictures for a measure: as numbers in [0, 1], and in batches for a network."""

import numpy as np

from minild.backend import to_device

PIXELS = 1 << 16  # at once: 64 pictures of 32 x 32


def pair(x, y):
    """Two sets of pictures as to_unit has them. ValueError where their shapes differ."""
    x, y = (to_unit(name, pictures) for name, pictures in (("x", x), ("y", y)))
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape of x, {x.shape}, got {y.shape}")
    return x, y


def to_unit(name, pictures):
    """Pictures (N, H, W, C), uint8 or float in [0, 1], as float64 in [0, 1]. ValueError, with `name`, for others."""
    if pictures.ndim != 4:
        raise ValueError(f"{name}: expected shape (N, H, W, C), got {pictures.shape}")
    if pictures.dtype != np.uint8 and pictures.dtype.kind != "f":
        raise ValueError(f"{name}: expected dtype uint8 or float, got {pictures.dtype}")
    return pictures.astype(np.float64) / (255 if pictures.dtype == np.uint8 else 1)


def at_once(pictures):
    """How many of these pictures (N, H, W, C) go into one batch."""
    return max(1, PIXELS // (pictures.shape[1] * pictures.shape[2]))


def batches(x, device):
    """Some of x (N, H, W, C) at a time, as float32 on the device."""
    step = at_once(x)
    for start in range(0, len(x), step):
        yield to_device(x[start : start + step].astype(np.float32), device)
