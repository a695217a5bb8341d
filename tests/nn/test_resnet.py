"""minild.nn.resnet: gradients, and where the paddings lie."""

import numpy as np
import pytest

from minild.gradcheck import check_module
from minild.nn.module import Module
from minild.nn.resnet import Downsample2D, ResnetBlock2D, Upsample2D

RIGHT_AND_BOTTOM = ((0, 1), (0, 1))


@pytest.mark.parametrize("out_channels", [8, 12])  # without and with a shortcut convolution
@pytest.mark.parametrize("temb_channels", [None, 5])
def test_resnet_gradient(rng, out_channels, temb_channels):
    inputs = {"x": rng.standard_normal((2, 5, 3, 8))}
    if temb_channels:
        inputs["temb"] = rng.standard_normal((2, temb_channels))
    check_module(ResnetBlock2D(8, out_channels, temb_channels=temb_channels, groups=4), inputs, samples=40)


@pytest.mark.parametrize("padding", [1, RIGHT_AND_BOTTOM])
@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_downsample_gradient(rng, padding, size):
    check_module(Downsample2D(4, padding), {"x": rng.standard_normal((2, *size, 4))}, samples=60)


class UpsampleTo(Module):
    """Upsample2D to a given size, for the checker."""

    def __init__(self, size):
        self.up, self.size = Upsample2D(4), size

    def forward(self, x):
        return self.up.forward(x, self.size)

    def backward(self, dy, cache):
        return self.up.backward(dy, cache)


SIZES = [None, (6, 10), (5, 10), (6, 9), (5, 9)]


@pytest.mark.parametrize("size", SIZES)
def test_upsample_gradient(rng, size):
    check_module(UpsampleTo(size), {"x": rng.standard_normal((2, 3, 5, 4))}, samples=60)


@pytest.mark.parametrize("size", SIZES)
def test_an_odd_size_is_cut_before_the_convolution(rng, size):
    """So that the last row sees zeros below itself, and not the row that was cut off."""
    block = Upsample2D(4).initialise(rng)
    x = rng.standard_normal((2, 3, 5, 4), dtype="f")
    rows, columns = (np.arange(n) // 2 for n in size or (6, 10))
    expected = block.conv(x[:, rows][:, :, columns])
    np.testing.assert_allclose(block(x, size), expected, atol=1e-6)


def test_of_an_even_size_nothing_is_cut(rng):
    """Nor is anything padded in the backward."""
    _, (_, left_out, _) = Upsample2D(4).initialise(rng).forward(rng.standard_normal((1, 3, 5, 4), dtype="f"), (6, 10))
    assert left_out is None


def test_a_shortcut_only_where_the_width_changes():
    assert ResnetBlock2D(8, 8, groups=4).conv_shortcut is None
    assert ResnetBlock2D(8, 12, groups=4).conv_shortcut.weight.data.shape == (1, 1, 8, 12)


def test_with_its_last_convolution_zero_a_resnet_is_its_shortcut(rng):
    block = ResnetBlock2D(8, 12, temb_channels=5, groups=4).initialise(rng)
    block.conv2.weight.data *= 0
    x, temb = rng.standard_normal((2, 5, 3, 8), dtype="f"), rng.standard_normal((2, 5), dtype="f")
    np.testing.assert_array_equal(block(x, temb), block.conv_shortcut(x))


def test_the_timestep_moves_each_picture_by_its_own_row(rng):
    block = ResnetBlock2D(8, 8, temb_channels=5, groups=4).initialise(rng)
    x, temb = rng.standard_normal((2, 5, 3, 8), dtype="f"), rng.standard_normal((2, 5), dtype="f")
    other = temb.copy()
    other[1] += 1
    before, after = block(x, temb), block(x, other)
    np.testing.assert_allclose(before[0], after[0], atol=1e-6)
    assert np.abs(before[1] - after[1]).max() > 1e-3


@pytest.mark.parametrize(("padding", "seen"), [(1, -1), (RIGHT_AND_BOTTOM, 0)])
def test_downsampling_starts_at_its_padding(rng, padding, seen):
    """The first output's window begins at pixel -1 with padding all round, at pixel 0 without one left and on top."""
    block = Downsample2D(1, padding).initialise(rng)
    x = rng.standard_normal((1, 6, 4, 1), dtype="f")
    window = np.zeros((3, 3), "f")
    for a in range(3):
        for b in range(3):
            if a + seen >= 0 and b + seen >= 0:
                window[a, b] = x[0, a + seen, b + seen, 0]
    y = block(x)
    assert y.shape == (1, 3, 2, 1)
    np.testing.assert_allclose(y[0, 0, 0, 0], (window * block.conv.weight.data[..., 0, 0]).sum(), atol=1e-6)
