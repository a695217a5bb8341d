"""minild.random: a picture's own random numbers."""

import numpy as np

from minild.random import image_generators, standard_normal


def test_a_picture_draws_the_same_alone_or_in_a_batch():
    batch = standard_normal(image_generators(5, 3), (4, 3, 2))
    alone = standard_normal(image_generators(7, 1), (4, 3, 2))
    assert batch.shape == (3, 4, 3, 2) and batch.dtype == np.float32
    np.testing.assert_array_equal(batch[2], alone[0])
    assert not np.array_equal(batch[0], batch[1])
