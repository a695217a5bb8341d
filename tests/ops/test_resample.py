"""minild.ops.resample: gradient, value, refusal."""

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops.resample import upsample_nearest, upsample_nearest_backward


def test_gradient(device, rng):
    check(upsample_nearest, upsample_nearest_backward, {"x": rng.standard_normal((2, 3, 5, 2))}, device=device)


def test_value(on_device, rng):
    x = rng.standard_normal((2, 3, 5, 2))
    y = on_device(upsample_nearest, x)
    assert y.shape == (2, 6, 10, 2)
    for i in range(6):
        for j in range(10):
            np.testing.assert_array_equal(y[:, i, j], x[:, i // 2, j // 2])


def test_wrong_rank_is_named():
    with pytest.raises(ValueError, match=r"^x: expected"):
        upsample_nearest(np.ones((3, 5, 2)))
