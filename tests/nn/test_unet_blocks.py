"""minild.nn.unet_blocks: gradients with all skips, and the order in which skips are used."""

import numpy as np
import pytest

from minild.gradcheck import check_module
from minild.nn.module import Module
from minild.nn.unet_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)

T, Dc = 5, 6  # widths of temb and of the context
ATTENDING = {"temb_channels": T, "groups": 4, "heads": 2, "context_width": Dc}


class Down(Module):
    """A down block with its skips as plain outputs, for the checker."""

    def __init__(self, block):
        self.block = block

    def forward(self, x, temb, context=None):
        (y, skips), cache = self.block.forward(x, temb, context)
        return (y, *skips), cache

    def backward(self, dy, cache):
        return self.block.backward((dy[0], dy[1:]), cache)


class Up(Module):
    """An up block with two skips as plain inputs, for the checker."""

    def __init__(self, block, size=None):
        self.block, self.size = block, size

    def forward(self, x, first, second, temb, context=None):
        return self.block.forward(x, [first, second], temb, context, self.size)

    def backward(self, dy, cache):
        dx, dskips, dtemb, dcontext = self.block.backward(dy, cache)
        return dx, *dskips, dtemb, dcontext


def attending(rng, inputs):
    return inputs | {"context": rng.standard_normal((2, 3, Dc))}


@pytest.mark.parametrize("downsample", [True, False])
def test_down_block_gradient(rng, downsample):
    block = DownBlock2D(4, 8, temb_channels=T, layers=2, downsample=downsample, groups=4, eps=1e-5)
    check_module(Down(block), {"x": rng.standard_normal((2, 5, 3, 4)), "temb": rng.standard_normal((2, T))}, samples=15)


@pytest.mark.parametrize("linear_projection", [False, True])
def test_cross_attention_down_block_gradient(rng, linear_projection):
    block = CrossAttnDownBlock2D(4, 8, layers=2, downsample=True, linear_projection=linear_projection, **ATTENDING)
    inputs = {"x": rng.standard_normal((2, 5, 3, 4)), "temb": rng.standard_normal((2, T))}
    check_module(Down(block), attending(rng, inputs), samples=5)


def test_middle_block_gradient(rng):
    block = UNetMidBlock2DCrossAttn(8, **ATTENDING)
    inputs = {"x": rng.standard_normal((2, 3, 5, 8)), "temb": rng.standard_normal((2, T))}
    check_module(block, attending(rng, inputs), samples=10)


def up_inputs(rng):
    """The first skip has 4 channels and the second, which is used first, 8."""
    widths = {"x": 12, "first": 4, "second": 8}
    maps = {name: rng.standard_normal((2, 3, 5, width)) for name, width in widths.items()}
    return maps | {"temb": rng.standard_normal((2, T))}


@pytest.mark.parametrize(("upsample", "size"), [(True, None), (True, (5, 10)), (False, None)])
def test_up_block_gradient(rng, upsample, size):
    block = UpBlock2D(12, [8, 4], 8, temb_channels=T, upsample=upsample, groups=4, eps=1e-5)
    inputs = up_inputs(rng)
    check_module(Up(block, size), inputs, samples=15)
    assert Up(block, size)(*inputs.values()).shape == (2, *(size or ((6, 10) if upsample else (3, 5))), 8)


@pytest.mark.parametrize("linear_projection", [False, True])
def test_cross_attention_up_block_gradient(rng, linear_projection):
    block = CrossAttnUpBlock2D(12, [8, 4], 8, upsample=True, linear_projection=linear_projection, **ATTENDING)
    check_module(Up(block), attending(rng, up_inputs(rng)), samples=5)


def test_a_skip_after_every_resnet_and_the_downsampler(rng):
    block = DownBlock2D(4, 8, temb_channels=T, layers=2, downsample=True, groups=4, eps=1e-5).initialise(rng)
    x, temb = rng.standard_normal((2, 6, 4, 4), dtype="f"), rng.standard_normal((2, T), dtype="f")
    y, skips = block(x, temb, None)
    first = block.resnets[0](x, temb)
    second = block.resnets[1](first, temb)
    for skip, expected in zip(skips, [first, second, block.downsamplers[0](second)], strict=True):
        np.testing.assert_array_equal(skip, expected)
    np.testing.assert_array_equal(y, skips[-1])


def test_the_last_skip_is_used_first_behind_the_hidden_channels(rng):
    block = UpBlock2D(12, [8, 4], 8, temb_channels=T, upsample=False, groups=4, eps=1e-5).initialise(rng)
    x, first, second, temb = (a.astype("f") for a in up_inputs(rng).values())
    h = block.resnets[0](np.concatenate([x, second], axis=-1), temb)
    expected = block.resnets[1](np.concatenate([h, first], axis=-1), temb)
    np.testing.assert_array_equal(block(x, [first, second], temb, None), expected)
