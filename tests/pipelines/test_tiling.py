"""minild.pipelines.tiling: a picture in tiles is the picture, and its memory is a tile's."""

import numpy as np
import pytest
import tiny_pipeline

from minild.pipelines import tiling
from minild.pipelines.tiling import OVERLAP, TILE, decode_in_tiles


def enlarge(z):
    """A decoder that looks at one position at a time."""
    return np.repeat(np.repeat(z[..., :3] * 2 + 1, 4, axis=1), 4, axis=2)


@pytest.mark.parametrize(("h", "w"), [(64, 64), (65, 130), (200, 40), (112, 113), (1, 131)])
def test_what_does_not_depend_on_the_neighbours_is_the_same(rng, h, w):
    seen = []

    def decode(z):
        seen.append(z.shape[1:3])
        return enlarge(z)

    latents = rng.standard_normal((2, h, w, 4)).astype("f")
    np.testing.assert_allclose(decode_in_tiles(decode, latents, 4), enlarge(latents), atol=1e-5)
    assert all(rows <= TILE and columns <= TILE for rows, columns in seen)
    assert len(seen) == 1 if max(h, w) == TILE else len(seen) > 1


def test_tiles_that_differ_in_tone_leave_no_seam():
    """Each tile comes out in a grey of its own: from one to the next the picture changes by small steps only."""
    tones = iter(np.linspace(0, 1, 100))
    picture = decode_in_tiles(lambda z: np.full((1, *z.shape[1:3], 3), next(tones), "f"), np.zeros((1, 150, 150, 4)), 1)
    steps = max(np.abs(np.diff(picture, axis=axis)).max() for axis in (1, 2))
    assert 0 < steps <= 2 * np.ptp(picture) / OVERLAP


@pytest.mark.parametrize(("h", "w", "seen"), [(40, 24, 2 * [(24, 24)]), (41, 23, 3 * [(24, 23)])])
def test_a_large_picture_is_decoded_in_tiles(monkeypatch, rng, h, w, seen):
    pipe = tiny_pipeline.make()
    latents = rng.standard_normal((1, h, w, pipe.vae.config["latent_channels"])).astype("f")
    whole = pipe.decode(latents)
    monkeypatch.setattr(tiling, "WHOLE", 20 * 24)
    monkeypatch.setattr(tiling, "TILE", 24)
    monkeypatch.setattr(tiling, "OVERLAP", 8)
    sizes = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z: sizes.append(z.shape[1:3]) or decode(z), raising=False)
    tiled = pipe.decode(latents)
    assert sizes == seen
    assert tiled.shape == whole.shape and tiled.min() >= 0 and tiled.max() <= 1
    assert np.abs(tiled - whole).mean() < 0.05
