"""Decoding a large picture tile by tile: the memory it takes does not grow with the picture."""

import numpy as np

WHOLE = 96 * 96  # latent positions decoded at once: 768 x 768 pixels of Stable Diffusion
TILE, OVERLAP = 64, 16  # latent positions on a side: as many as Stable Diffusion's decoder was trained on; shared ones


def decode_in_tiles(decode, latents, factor):
    """decode(latents), put together from tiles that overlap and fade into each other.

    latents (N, h, w, c) -> (N, factor · h, factor · w, 3) float32 on the host, as decode(tile) gives them. Every
    tile is normalised by itself, so neighbours may differ a little in tone; over 16 positions no seam is seen.
    """
    N, h, w, _ = latents.shape
    total = np.zeros((N, factor * h, factor * w, 3), np.float32)
    weight = np.zeros((factor * h, factor * w, 1), np.float32)
    for top in _starts(h):
        for left in _starts(w):
            tile = decode(latents[:, top : top + TILE, left : left + TILE])
            fade = _fade(tile.shape[1], factor)[:, None, None] * _fade(tile.shape[2], factor)[:, None]
            place = slice(factor * top, factor * top + len(fade)), slice(factor * left, factor * left + fade.shape[1])
            total[(slice(None), *place)] += tile * fade
            weight[place] += fade
    total /= weight
    return total


def _starts(size):
    """Where the tiles begin along an axis, so that neighbours share OVERLAP positions or more."""
    count = max(1, -(-(size - OVERLAP) // (TILE - OVERLAP)))
    return np.linspace(0, max(0, size - TILE), count).round().astype(int).tolist()


def _fade(length, factor):
    """(length,): 1 in the middle of a tile, falling towards both ends over the overlap."""
    inwards = (np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5) / (OVERLAP * factor)
    return np.minimum(inwards, 1).astype(np.float32)
