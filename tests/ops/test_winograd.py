"""minild.ops.winograd held to direct convolution, and minild.ops.bands, which cuts both into pieces."""

import device_double
import numpy as np
import pytest

from minild import backend
from minild.ops import conv, kernels, winograd
from minild.ops.bands import band, bands
from minild.ops.conv import conv2d, conv2d_backward

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
    with conv.exact():
        expected, cache = conv2d(x, weight, bias, padding=margins)
        dy = rng.standard_normal(expected.shape).astype(dtype)
        _, dweight, _ = conv2d_backward(dy, cache)
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


def test_is_used_where_it_pays_and_can_be_switched_off(rng):
    x, weight = np.ones((2, 32, 32, 32), np.float32), np.ones((3, 3, 32, 32), np.float32)
    assert conv.algorithm(x, weight, 1, AROUND) == "winograd"
    with conv.exact():
        assert conv.algorithm(x, weight, 1, AROUND) == "patches"
    assert conv.algorithm(x, weight, 1, AROUND) == "winograd"
    assert conv.algorithm(x, weight, 2, AROUND) == "patches"
    assert conv.algorithm(x.astype(np.float64), weight.astype(np.float64), 1, AROUND) == "patches"
    assert conv.algorithm(x[:, :8, :8], weight, 1, AROUND) == "patches"  # too few tiles
    assert conv.algorithm(x[..., :3], weight[:, :, :3], 1, AROUND) == "patches"  # too few channels
    assert conv.algorithm(x, weight[:1, :1], 1, ((0, 0), (0, 0))) == "product"


def test_on_a_gpu_it_is_used_unless_products_may_be_in_tf32(monkeypatch):
    x, weight = (device_double.to_device(np.ones(s, np.float32)) for s in [(2, 32, 32, 32), (3, 3, 32, 32)])
    assert conv.algorithm(x, weight, 1, AROUND) == "patches"  # no kernels for it
    monkeypatch.setattr(kernels, "serve", lambda x: True)
    monkeypatch.delenv("CUPY_TF32", raising=False)
    assert conv.algorithm(x, weight, 1, AROUND) == "winograd"
    monkeypatch.setenv("CUPY_TF32", "1")
    assert conv.algorithm(x, weight, 1, AROUND) == "patches"


def test_backward_of_a_convolution_that_it_carries(rng):
    x = rng.standard_normal((3, 16, 16, 32), np.float32)
    weight = rng.standard_normal((3, 3, 32, 48), np.float32) / np.float32(17)
    bias = rng.standard_normal(48, np.float32)
    y, cache = conv2d(x, weight, bias, padding=1)
    dy = rng.standard_normal(y.shape, np.float32)
    kept = x.copy(), weight.copy(), dy.copy()
    gradients = conv2d_backward(dy, cache)
    for ours, before in zip((x, weight, dy), kept):
        np.testing.assert_array_equal(ours, before)
    with conv.exact():
        assert not np.array_equal(conv2d(x, weight, bias, padding=1)[0], y)  # it was another algorithm
        for ours, exact in zip(gradients, conv2d_backward(dy, cache)):
            np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("least", [1, 30])
@pytest.mark.parametrize(("N", "rows", "columns", "size"), [(7, 5, 4, 9), (3, 50, 40, 300), (1, 3, 1000, 1000)])
def test_bands_cover_every_pixel_once(N, rows, columns, size, least):
    seen = np.zeros((N, rows, columns), int)
    for images, part in bands(N, rows, columns, size, seen, least):
        seen[images, part] += 1
        held = seen[images, part].size
        assert held >= min(least, rows * columns) or images.stop == N or part.stop == rows
        assert held * size <= max(backend.PIECE, (least + columns) * size)
    assert (seen == 1).all()


def test_a_band_is_the_picture_and_zeros_around(rng):
    x = rng.standard_normal((3, 6, 5, 2))
    around = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for top, height, left, width in [(0, 6, 0, 5), (1, 3, 1, 2), (-2, 5, -1, 7), (3, 6, 2, 4), (-4, 14, -4, 13)]:
        expected = around[1:3, 4 + top : 4 + top + height, 4 + left : 4 + left + width]
        np.testing.assert_array_equal(band(x, slice(1, 3), top, height, left, width), expected)
