"""The grounds of the scenes: plain colours, and textures drawn by code.

A texture is a fall of colours from top to bottom and a cut, anywhere, out of a large tile of smoothed noise.
"""

import functools

import numpy as np

TILE = 256  # a tile's width, in pixels; it joins itself at the edges

# What is said of a ground in a caption, and its colours at rows evenly spread from the top to the bottom.
GROUNDS = {
    "on a white background": [(255, 255, 255)],
    "on a grey background": [(150, 150, 150)],
    "on a pink background": [(255, 205, 220)],
    "on the grass": [(110, 178, 66), (84, 152, 52)],
    "on the sea": [(66, 150, 214), (26, 92, 168)],
    "on the sand": [(240, 214, 160), (222, 190, 132)],
    "in the night sky": [(10, 12, 44), (44, 44, 98)],
    "at sunset": [(84, 70, 140), (226, 104, 92), (255, 200, 110)],
}


@functools.cache
def mean_ground(ground, size):
    """What a ground is without its texture -> (size, 1, 3) float32, 0 to 255."""
    colours = np.array(GROUNDS[ground], np.float32)
    at = np.linspace(0, 1, len(colours))
    rows = [np.interp(np.linspace(0, 1, size), at, colours[:, channel]) for channel in range(3)]
    return np.stack(rows, axis=-1).astype(np.float32)[:, None]


def draw_ground(ground, size, top, left):
    """A ground, its texture cut at (top, left) of the tile, 0 .. TILE - 1 -> (size, size, 3) float32, 0 to 255."""
    tile = _tile(ground)
    if tile is None:
        return np.broadcast_to(mean_ground(ground, size), (size, size, 3)).copy()
    rows, columns = ((start + np.arange(size)) % TILE for start in (top, left))
    return mean_ground(ground, size) + tile[rows][:, columns]


@functools.cache
def _tile(ground):
    """What a texture adds to the colours, (TILE, TILE, 3) float32; None for a plain ground."""
    if ground == "on the grass":  # blades: tall and thin
        return 17 * _noise(0, 3.2, 0.9) * np.float32([0.8, 1, 0.5])
    if ground == "on the sea":  # waves: wide and low, with bright crests
        waves = _noise(1, 1.3, 5)
        return (13 * waves + 34 * (waves - 1.1).clip(0, 1.5)) * np.float32([0.9, 1, 0.9])
    if ground == "on the sand":  # ripples
        return (7 * _noise(2, 1.8, 7) + 3 * _noise(3, 0.8, 0.8)) * np.float32([1, 0.95, 0.8])
    if ground == "in the night sky":
        stars = (_noise(4, 0.75, 0.75) - 2.5).clip(0, 1.2)
        return 190 * stars * np.float32([1, 1, 0.85])
    if ground == "at sunset":  # streaks of cloud
        return 11 * _noise(5, 2.2, 10) * np.float32([1, 0.7, 0.9])
    return None


def _noise(seed, sigma_y, sigma_x):
    """White noise under a Gaussian of these widths in pixels, of mean 0 and variance 1 -> (TILE, TILE, 1) float32."""
    white = np.random.default_rng(seed).standard_normal((TILE, TILE))
    frequencies = np.fft.fftfreq(TILE)
    fall = [np.exp(-2 * (np.pi * sigma * frequencies) ** 2) for sigma in (sigma_y, sigma_x)]
    smooth = np.fft.ifft2(np.fft.fft2(white) * np.outer(*fall)).real
    return ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)[..., None]
