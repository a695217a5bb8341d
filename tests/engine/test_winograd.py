"""Winograd's convolution held to the textbook, and where it serves."""

import device_double
import numpy as np
import pytest

from minild.engine import cuda
from minild.engine.cpu import conv, winograd
from minild.engine.cuda import winograd as cuda_winograd
from minild.engine.table import OPS
from minild.ops import conv as textbook

AROUND = ((1, 1), (1, 1))
CASES = [  # x's shape, Cout, margins: whole and broken tiles, uneven margins, a picture in several bands
    ((3, 8, 12, 5), 7, AROUND),
    ((2, 9, 6, 4), 3, AROUND),
    ((2, 7, 10, 3), 6, ((0, 2), (2, 1))),
    ((1, 6, 6, 2), 2, ((0, 0), (0, 0))),
    ((1, 64, 56, 40), 33, AROUND),
    ((5, 20, 20, 33), 40, AROUND),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize(("shape", "Cout", "margins"), CASES)
def test_equals_direct_convolution(rng, shape, Cout, margins, dtype, tolerance):
    x = rng.standard_normal(shape).astype(dtype)
    weight = (rng.standard_normal((3, 3, shape[3], Cout)) / np.sqrt(9 * shape[3])).astype(dtype)
    bias = rng.standard_normal(Cout).astype(dtype)
    expected, cache = textbook.conv2d(x, weight, bias, padding=margins)
    dy = rng.standard_normal(expected.shape).astype(dtype)
    _, dweight, _ = textbook.conv2d_backward(dy, cache)
    y = np.full_like(expected, np.nan)
    winograd.correlate(x, weight, bias, margins, y)
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
    ours = winograd.weight_gradient(x, dy, margins)
    np.testing.assert_allclose(ours, dweight, rtol=0, atol=tolerance * np.abs(dweight).max())


def test_many_channels_are_taken_some_at_a_time(rng, monkeypatch):
    x, weight = rng.standard_normal((2, 9, 6, 4)), rng.standard_normal((3, 3, 4, 7))
    bias, values = rng.standard_normal(7), np.empty(winograd.values_shape(x.shape, AROUND))
    whole, parts = np.empty((2, 2, 9, 6, 7))
    winograd.correlate(x, weight, bias, AROUND, whole, values)
    kept = values.copy()
    monkeypatch.setattr(winograd, "LARGEST", 3 * 36 * 4)  # three of the seven channels
    winograd.correlate(x, weight, bias, AROUND, parts, values)
    np.testing.assert_allclose(parts, whole, atol=1e-12)
    np.testing.assert_array_equal(values, kept)


def which(x, weight, **settings):
    """The implementation that the table gives for such a convolution."""
    return OPS["conv2d"].implementation((x, weight), settings).op


def test_it_serves_where_it_pays():
    x, weight = np.ones((2, 32, 32, 32), np.float32), np.ones((3, 3, 32, 32), np.float32)
    assert which(x, weight, padding=1) is winograd.conv2d
    assert which(x, weight, padding=1, stride=2) is conv.conv2d
    assert which(x.astype(np.float64), weight.astype(np.float64), padding=1) is conv.conv2d
    assert which(x[:, :8, :8], weight, padding=1) is conv.conv2d  # too few tiles
    assert which(x[..., :3], weight[:, :, :3], padding=1) is conv.conv2d  # too few channels
    assert which(x, weight[:1, :1]) is conv.conv2d_product


def test_on_a_gpu_it_serves_unless_products_may_be_in_tf32(monkeypatch):
    x, weight = (device_double.to_device(np.ones(s, np.float32)) for s in [(2, 32, 32, 32), (3, 3, 32, 32)])
    assert which(x, weight, padding=1) is conv.conv2d  # no kernels for the double
    monkeypatch.setattr(cuda, "has_kernels", lambda x: True)
    monkeypatch.delenv("CUPY_TF32", raising=False)
    assert which(x, weight, padding=1) is cuda_winograd.conv2d
    monkeypatch.setenv("CUPY_TF32", "1")
    assert which(x, weight, padding=1) is conv.conv2d


def test_the_weights_gradient_is_the_same_with_and_without_kept_values(rng, monkeypatch):
    """Both held to the textbook: of the two ways to compute it neither may be taken as the measure of the other."""
    x, dy = rng.standard_normal((3, 16, 16, 32), np.float32), rng.standard_normal((3, 16, 16, 48), np.float32)
    weight = rng.standard_normal((3, 3, 32, 48), np.float32) / np.float32(17)
    exact = textbook.conv2d_backward(dy, textbook.conv2d(x, weight, padding=1)[1])[1]
    for kept in (winograd.KEPT, 0):
        monkeypatch.setattr(winograd, "KEPT", kept)
        _, cache = winograd.conv2d(x, weight, padding=1)
        assert (cache.values is None) == (kept == 0) and (cache.x is None) == (kept > 0)
        dweight = winograd.conv2d_backward(dy, cache)[1]
        np.testing.assert_allclose(dweight, exact, rtol=0, atol=2e-5 * np.abs(exact).max())
