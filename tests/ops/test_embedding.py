"""minild.ops.embedding: gradients, values, refusals."""

import math

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops.embedding import (
    timestep_embedding,
    timestep_embedding_backward,
    token_embedding,
    token_embedding_backward,
)

IDS = np.array([[0, 4, 4], [2, 0, 4]])  # repeated within and between rows; 1 and 3 unused


def test_token_embedding_gradient(device, rng):
    inputs = {"ids": IDS, "weight": rng.standard_normal((5, 4))}
    check(token_embedding, token_embedding_backward, inputs, device=device)


def test_token_embedding_value(on_device, rng):
    weight = rng.standard_normal((5, 4))
    y = on_device(token_embedding, IDS, weight)
    assert y.shape == (2, 3, 4)
    np.testing.assert_array_equal(y[1, 0], weight[2])
    np.testing.assert_array_equal(y[0, 2], weight[4])


def test_token_embedding_names_a_wrong_argument():
    with pytest.raises(ValueError, match=r"^ids: expected integers"):
        token_embedding(IDS.astype(float), np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"^weight: expected"):
        token_embedding(IDS, np.ones(5))


@pytest.mark.parametrize("settings", [{}, {"flip_sin_to_cos": False}, {"freq_shift": 1, "max_period": 100}])
def test_timestep_embedding(device, on_device, settings):
    t = np.array([0.0, 1.5, 7.0])
    inputs = {"t": t}
    check(timestep_embedding, timestep_embedding_backward, inputs, dim=6, device=device, **settings)
    half, shift, period = 3, settings.get("freq_shift", 0), settings.get("max_period", 10000)
    angles = [[value * period ** (-i / (half - shift)) for i in range(half)] for value in t]
    cos, sin = ([[f(a) for a in row] for row in angles] for f in (math.cos, math.sin))
    parts = [cos, sin] if settings.get("flip_sin_to_cos", True) else [sin, cos]
    y = on_device(timestep_embedding, t, 6, **settings)
    np.testing.assert_allclose(y, np.concatenate(parts, axis=1), atol=1e-13)


def test_timestep_embedding_in_float32(on_device):
    y = on_device(timestep_embedding, np.array([999.0, 3.0], "f"), 320)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, timestep_embedding(np.array([999.0, 3.0]), 320)[0], atol=1e-3)


def test_timestep_embedding_of_an_odd_width_ends_in_zeros(device, on_device):
    t = np.array([1.5, 7.0])
    check(timestep_embedding, timestep_embedding_backward, {"t": t}, dim=7, device=device)
    y = on_device(timestep_embedding, t, 7)
    np.testing.assert_array_equal(y[:, :6], on_device(timestep_embedding, t, 6))
    assert y.shape == (2, 7) and not y[:, 6].any()


def test_timestep_embedding_names_a_wrong_argument():
    with pytest.raises(ValueError, match=r"^t: expected"):
        timestep_embedding(np.ones((2, 1)), 6)
