"""minild.ops.pool: gradients, values, refusals."""

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops.pool import max_pool2d, max_pool2d_backward


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 3, 2), (2, 2, 2, 1)])
def test_gradient(device, rng, shape):
    check(max_pool2d, max_pool2d_backward, {"x": rng.standard_normal(shape)}, device=device)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 3, 2)])
def test_value(on_device, rng, shape):
    x = rng.standard_normal(shape)
    N, H, W, C = shape
    expected = np.empty((N, H // 2, W // 2, C))
    for n, i, j, c in np.ndindex(expected.shape):
        expected[n, i, j, c] = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].max()
    np.testing.assert_array_equal(on_device(max_pool2d, x), expected)


def test_of_equals_the_first_gets_the_gradient():
    _, cache = max_pool2d(np.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(max_pool2d_backward(np.ones((1, 1, 1, 1)), cache)[0, ..., 0], [[1, 0], [0, 0]])


def test_refusals():
    with pytest.raises(ValueError, match=r"^x: expected \(N, H, W, C\)"):
        max_pool2d(np.ones((4, 4, 3)))
    with pytest.raises(ValueError, match=r"^x: expected 2 x 2 pixels or more"):
        max_pool2d(np.ones((1, 1, 4, 3)))
