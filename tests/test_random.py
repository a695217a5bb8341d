"""minild.random: a picture's own random numbers."""

import itertools

import numpy as np

from minild.random import image_generators, slerp, standard_normal


def test_a_picture_draws_the_same_alone_or_in_a_batch():
    batch = standard_normal(image_generators(5, 3), (4, 3, 2))
    alone = standard_normal(image_generators(7, 1), (4, 3, 2))
    assert batch.shape == (3, 4, 3, 2) and batch.dtype == np.float32
    np.testing.assert_array_equal(batch[2], alone[0])
    assert not np.array_equal(batch[0], batch[1])


def test_slerp_turns_at_an_even_pace_and_keeps_the_variance(rng):
    a, b = rng.standard_normal((2, 40, 40, 4))
    way = [slerp(a, b, share) for share in np.linspace(0, 1, 5)]
    np.testing.assert_allclose([way[0], way[-1]], [a, b], atol=1e-12)
    assert all(0.95 < each.var() < 1.05 for each in way)  # half way along a straight line it would be 0.5
    length = np.linalg.norm
    angles = [np.arccos((x * y).sum() / length(x) / length(y)) for x, y in itertools.pairwise(way)]
    np.testing.assert_allclose(angles, angles[0], rtol=0.02)


def test_slerp_of_one_direction_is_the_straight_line(rng):
    a = rng.standard_normal((3, 2))
    np.testing.assert_allclose(slerp(a, 2 * a, 0.25), 1.25 * a)
    np.testing.assert_allclose(slerp(a, a, 0.5), a)
