"""UNet2DConditionModel on latents of any size: fast and plain agree, and attention maps have their level's size."""

import numpy as np
import pytest

from minild import using
from minild.models import UNet2DConditionModel
from minild.ops import softmax, softmax_backward
from models.tiny import UNET

ATTENDING = UNET | {
    "block_out_channels": [16, 16, 32],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
}


def passes(model, size, rng):
    """y, dx and the gradient of every parameter, for latents of that size."""
    x, dy = rng.standard_normal((2, 2, *size, 3), np.float32)
    t, context = np.array([37, 612]), rng.standard_normal((2, 5, 6), np.float32)
    model.zero_grad()
    y, cache = model.forward(x, t, context)
    dx, _, _ = model.backward(dy, cache)
    return [y, dx, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("size", [(39, 54), (64, 33), (1, 1)])
def test_fast_is_the_textbook(size):
    """At widths and sizes at which the convolution after an upsampling is Winograd's, on what the crop has left."""
    model = UNet2DConditionModel.from_config(ATTENDING)
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.05 * rng.standard_normal(parameter.shape, np.float32)
    fast = passes(model, size, np.random.default_rng(2))
    with using("textbook"):
        plain = passes(model, size, np.random.default_rng(2))
    largest = max(abs(array).max() for array in plain[2:])
    for a, b in zip(fast, plain, strict=True):
        scale = max(abs(b).max(), 1e-2 * largest)
        assert abs(a - b).max() <= 1e-3 * scale


@pytest.mark.parametrize(("size", "levels"), [((9, 8), [72, 20, 6]), ((5, 7), [35, 12, 4]), ((2, 1), [2, 1, 1])])
def test_the_attention_maps_of_a_level_have_its_size(size, levels):
    """9 x 8 positions, 5 x 4 and 3 x 2: of self-attention (queries, queries), of cross-attention (queries, tokens)."""
    maps = []

    def recording(scores):
        y, cache = softmax(scores)
        maps.append(y.shape)
        return y, cache

    x, context = np.ones((1, *size, 3), np.float32), np.ones((1, 5, 6), np.float32)
    with using(softmax=(recording, softmax_backward)):
        UNet2DConditionModel.from_config(ATTENDING)(x, np.array([37]), context)
    visited = [levels[0], levels[1], levels[2], levels[2]]  # down, and the middle
    visited += [level for level in reversed(levels) for _ in range(2)]  # up
    assert maps == [shape for level in visited for shape in ((1, 2, level, level), (1, 2, level, 5))]
