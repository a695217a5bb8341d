"""Large pictures tile by tile: the memory a tile takes does not grow with the picture."""

import numpy as np

WHOLE = 96 * 96  # latent positions decoded at once: 768 x 768 pixels of Stable Diffusion
TILE, OVERLAP = 64, 16  # latent positions on a side: as many as Stable Diffusion's decoder was trained on; shared ones


def decode_in_tiles(decode, latents, factor):
    """decode(latents), put together from tiles that overlap and fade into each other.

    latents (N, h, w, c) -> (N, factor · h, factor · w, 3) float32 on the host, as decode(tile) gives them. Every
    tile is normalised by itself, so neighbours may differ a little in tone; over 16 positions no seam is seen.
    """
    size, tile = latents.shape[1:3], (TILE, TILE)
    places = tile_places(size, tile, OVERLAP)
    return joined_tiles((decode(latents[:, rows, columns]) for rows, columns in places), places, size, OVERLAP, factor)


def tile_places(size, tile, overlap):
    """Where the tiles of an (h, w) lie, a list of two slices each: neighbours share `overlap` positions or more."""
    starts = [_starts(whole, side, overlap) for whole, side in zip(size, tile)]
    return [(slice(top, top + tile[0]), slice(left, left + tile[1])) for top in starts[0] for left in starts[1]]


def joined_tiles(tiles, places, size, overlap, factor):
    """Tiles (N, factor · th, factor · tw, 3) in turn, of places of an (h, w) -> (N, factor · h, factor · w, 3)."""
    height, width = (factor * side for side in size)
    total, weight = 0, np.zeros((height, width, 1), np.float32)
    for tile, (rows, columns) in zip(tiles, places, strict=True):
        if np.ndim(total) == 0:
            total = np.zeros((len(tile), height, width, 3), np.float32)
        fade = _fade(tile.shape[1], factor * overlap)[:, None, None] * _fade(tile.shape[2], factor * overlap)[:, None]
        top, left = factor * rows.start, factor * columns.start
        place = slice(top, top + len(fade)), slice(left, left + fade.shape[1])
        total[(slice(None), *place)] += tile * fade
        weight[place] += fade
    total /= weight
    return total


def _starts(size, tile, overlap):
    """Where the tiles begin along an axis, so that neighbours share `overlap` positions or more."""
    count = max(1, -(-(size - overlap) // (tile - overlap)))
    return np.linspace(0, max(0, size - tile), count).round().astype(int).tolist()


def _fade(length, overlap):
    """(length,): 1 in the middle of a tile, falling towards both ends over the overlap, in pixels."""
    inwards = (np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5) / overlap
    return np.minimum(inwards, 1).astype(np.float32)
