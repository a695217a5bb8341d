"""minild.ops.linear: gradients, values, refusals."""

import numpy as np
import pytest

from minild.backend import to_device
from minild.gradcheck import check
from minild.ops.linear import linear, linear_backward


@pytest.mark.parametrize("lead", [(3,), (2, 5), (2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradient(device, rng, lead, bias):
    inputs = {"x": rng.standard_normal((*lead, 4)), "weight": rng.standard_normal((4, 7)),
              "bias": rng.standard_normal(7) if bias else None}
    check(linear, linear_backward, inputs, device=device)


def test_value(on_device, rng):
    x, weight, bias = rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    expected = np.zeros((2, 3, 5))
    for n in range(2):
        for l in range(3):
            for j in range(5):
                expected[n, l, j] = bias[j] + sum(x[n, l, i] * weight[i, j] for i in range(4))
    np.testing.assert_allclose(on_device(linear, x, weight, bias), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "shapes"), [
    ("weight", ((2, 4), (5, 4), (4,))), ("weight", ((2, 4), (4,), (4,))), ("bias", ((2, 4), (4, 5), (4,))),
])
def test_wrong_shape_is_named(name, shapes):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        linear(*map(np.ones, shapes))


def test_wrong_dtype_is_named():
    with pytest.raises(ValueError, match=r"^weight: expected dtype float64"):
        linear(np.ones((2, 4)), np.ones((4, 5), np.float32))
    with pytest.raises(ValueError, match=r"^bias: expected dtype float64"):
        linear(np.ones((2, 4)), np.ones((4, 5)), np.ones(5, np.float32))


def test_wrong_device_is_named():
    with pytest.raises(ValueError, match=r"^weight: expected a DeviceArray like x, got ndarray"):
        linear(to_device(np.ones((2, 4)), "double"), np.ones((4, 5)))
