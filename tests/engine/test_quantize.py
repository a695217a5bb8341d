"""The engine's search for the nearest code: pieces, and the memory that they bound."""

import tracemalloc

import numpy as np
import pytest

from minild import backend
from minild.engine.cpu import quantize as module
from minild.engine.cpu.quantize import nearest_code


def brute_force(z, codebook):
    return ((z[..., None, :] - codebook) ** 2).sum(axis=-1).argmin(axis=-1)


@pytest.fixture
def inputs(rng):
    return {"z": rng.standard_normal((2, 3, 5, 4)), "codebook": rng.standard_normal((7, 4))}


@pytest.mark.parametrize("piece", [1, 14, 60])  # one vector at a time; two; eight and a rest of six
def test_pieces_together_are_the_whole(device, inputs, monkeypatch, piece):
    monkeypatch.setattr(module, "DISTANCES", piece)
    indices = nearest_code(*(backend.to_device(x, device) for x in inputs.values()))
    np.testing.assert_array_equal(backend.to_host(indices), brute_force(**inputs))


def test_distances_are_held_a_piece_at_a_time(rng):
    z, codebook = rng.standard_normal((1, 64, 64, 3), dtype="f"), rng.standard_normal((4096, 3), dtype="f")
    tracemalloc.start()
    indices = nearest_code(z, codebook)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6  # all distances take 67 MB
    np.testing.assert_array_equal(indices[0, -1, -2:], brute_force(z[0, -1, -2:], codebook))
