"""minild.nn.autoencoder_blocks: gradients and sizes."""

import numpy as np
import pytest

from minild.gradcheck import check_module
from minild.nn.autoencoder_blocks import Decoder, DownEncoderBlock2D, Encoder, UNetMidBlock2D, UpDecoderBlock2D


@pytest.mark.parametrize(("block", "size"), [
    (DownEncoderBlock2D(4, 8, layers=2, downsample=True, groups=4), (5, 7)),
    (DownEncoderBlock2D(8, 8, layers=1, downsample=False, groups=4), (3, 5)),
    (UpDecoderBlock2D(8, 4, layers=2, upsample=True, groups=4), (3, 5)),
    (UpDecoderBlock2D(8, 8, layers=1, upsample=False, groups=4), (3, 5)),
    (UNetMidBlock2D(8, groups=4), (3, 5)),
    (UNetMidBlock2D(8, groups=4, attention=False), (3, 5)),
], ids=["down", "last down", "up", "last up", "middle", "middle without attention"])
def test_block_gradient(rng, block, size):
    channels = block.resnets[0].norm1.weight.data.size
    check_module(block, {"x": rng.standard_normal((2, *size, channels))}, samples=15)


@pytest.mark.parametrize("mid_attention", [True, False])
def test_encoder_and_decoder_gradient(rng, mid_attention):
    encoder = Encoder(3, 4, [4, 8], layers=1, groups=4, mid_attention=mid_attention)
    check_module(encoder, {"x": rng.standard_normal((2, 6, 8, 3))}, samples=6)
    decoder = Decoder(2, 3, [4, 8], layers=1, groups=4, mid_attention=mid_attention)
    check_module(decoder, {"x": rng.standard_normal((2, 3, 4, 2))}, samples=6)


def test_three_blocks_make_a_factor_of_four(rng):
    encoder = Encoder(3, 4, [4, 4, 8], layers=1, groups=4).initialise(rng)
    decoder = Decoder(2, 3, [4, 4, 8], layers=1, groups=4).initialise(rng)
    h = encoder(rng.standard_normal((1, 16, 12, 3), dtype="f"))
    assert h.shape == (1, 4, 3, 4) and h.dtype == np.float32
    assert decoder(h[..., :2]).shape == (1, 16, 12, 3)
    assert [len(block.resnets) for block in encoder.down_blocks] == [1, 1, 1]
    assert [len(block.resnets) for block in decoder.up_blocks] == [2, 2, 2]


def test_the_encoder_pads_at_the_right_and_the_bottom(rng):
    """The first pixel downsampled is of the 3 x 3 first pixels, the last one of zeros beyond the last two."""
    block = DownEncoderBlock2D(4, 4, layers=0, downsample=True, groups=4).initialise(rng)
    weight = block.downsamplers[0].conv.weight.data
    x = rng.standard_normal((1, 6, 4, 4), dtype="f")
    y = block(x)
    assert y.shape == (1, 3, 2, 4)
    np.testing.assert_allclose(y[0, 0, 0], np.einsum("abc,abcd->d", x[0, :3, :3], weight), atol=1e-6)
    np.testing.assert_allclose(y[0, 2, 1], np.einsum("abc,abcd->d", x[0, 4:, 2:], weight[:2, :2]), atol=1e-6)
