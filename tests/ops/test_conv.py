"""minild.ops.conv: gradients, values, refusals."""

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops.conv import col2im, conv2d, conv2d_backward, im2col

CASES = [  # kernel, stride, padding
    ((3, 3), 1, 1),
    ((3, 3), 2, 1),
    ((3, 3), 2, ((0, 1), (0, 1))),  # the autoencoder's downsampling
    ((1, 1), 1, 0),
    ((1, 1), 2, 0),
    ((1, 1), 1, 1),
    ((2, 3), 1, 0),
    ((3, 2), 1, ((2, 0), (1, 3))),
    ((3, 2), 3, ((1, 0), (2, 1))),
    ((3, 3), 1, 3),  # more padding than the kernel reaches over
    ((4, 4), 2, 1),
]


def plain_conv2d(x, weight, bias, stride, padding):
    """The sum of the definition, pixel by pixel."""
    margins = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    x = np.pad(x, ((0, 0), *margins, (0, 0)))
    kH, kW, _, Cout = weight.shape
    Ho, Wo = (x.shape[1] - kH) // stride + 1, (x.shape[2] - kW) // stride + 1
    y = np.zeros((len(x), Ho, Wo, Cout))
    for i in range(Ho):
        for j in range(Wo):
            patch = x[:, stride * i : stride * i + kH, stride * j : stride * j + kW]
            y[:, i, j] = np.einsum("nabc,abco->no", patch, weight) + bias
    return y


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_gradient(device, rng, kernel, stride, padding):
    inputs = {"x": rng.standard_normal((2, 7, 5, 3)), "weight": rng.standard_normal((*kernel, 3, 4)),
              "bias": rng.standard_normal(4)}
    check(conv2d, conv2d_backward, inputs, stride=stride, padding=padding, device=device)


def test_gradient_without_bias(device, rng):
    inputs = {"x": rng.standard_normal((2, 4, 5, 3)), "weight": rng.standard_normal((3, 3, 3, 2)), "bias": None}
    check(conv2d, conv2d_backward, inputs, stride=2, padding=1, device=device)


def test_gradient_where_the_stride_leaves_pixels_unseen(device, rng):
    inputs = {"x": rng.standard_normal((2, 6, 8, 1)), "weight": rng.standard_normal((3, 3, 1, 2)), "bias": None}
    check(conv2d, conv2d_backward, inputs, stride=2, device=device)


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_value(on_device, rng, kernel, stride, padding):
    x, weight, bias = rng.standard_normal((2, 7, 6, 3)), rng.standard_normal((*kernel, 3, 4)), rng.standard_normal(4)
    y = on_device(conv2d, x, weight, bias, stride=stride, padding=padding)
    np.testing.assert_allclose(y, plain_conv2d(x, weight, bias, stride, padding), atol=1e-12)


def test_float32_in_float32_out(on_device, rng):
    x, weight = rng.standard_normal((1, 5, 4, 3), "f"), rng.standard_normal((3, 3, 3, 2), "f")
    y = on_device(conv2d, x, weight, padding=1)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, plain_conv2d(x, weight, 0, 1, 1), atol=1e-5)


def test_unfolded_patches_are_the_caller_s_own(rng):
    first, second = rng.standard_normal((2, 1, 5, 4, 3))
    columns = im2col(first, (3, 3), 1)
    before = columns.copy()
    im2col(second, (3, 3), 1)
    np.testing.assert_array_equal(columns, before)


def test_fold_is_the_transpose_of_unfold(rng):
    x = rng.standard_normal((2, 7, 6, 3))
    columns = im2col(x, (3, 2), 2)
    other = rng.standard_normal(columns.shape)
    np.testing.assert_allclose(np.sum(columns * other), np.sum(x * col2im(other, x.shape, 2)))


@pytest.mark.parametrize(("name", "shapes"), [
    ("x", ((5, 4, 3), (3, 3, 3, 2))),
    ("weight", ((1, 5, 4, 3), (3, 3, 2, 3))),
    ("weight", ((1, 5, 4, 3), (3, 3, 3))),
    ("bias", ((1, 5, 4, 3), (3, 3, 3, 2), (3,))),
    ("x", ((1, 5, 2, 3), (3, 3, 3, 2))),  # smaller than the kernel
])
def test_wrong_shape_is_named(name, shapes):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        conv2d(*map(np.ones, shapes))


@pytest.mark.parametrize(("name", "settings"), [
    ("padding", {"padding": -1}), ("stride", {"stride": 0}), ("stride", {"stride": 1.0}),
])
def test_wrong_setting_is_named(name, settings):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        conv2d(np.ones((1, 5, 4, 3)), np.ones((3, 3, 3, 2)), **settings)


def test_wrong_dtype_is_named():
    with pytest.raises(ValueError, match=r"^weight: expected dtype float64"):
        conv2d(np.ones((1, 3, 3, 2)), np.ones((3, 3, 2, 2), np.float32))
