"""minild.nn.attention: gradients, and values from the ops."""

import numpy as np
import pytest

from minild.gradcheck import check_module
from minild.nn.attention import (
    Attention,
    AttentionBlock2D,
    BasicTransformerBlock,
    FeedForward,
    GatedProjection,
    Transformer2DModel,
)
from minild.ops.activation import gelu

N, L, Lk, D, Dc = 2, 5, 3, 8, 6  # as many of each as tells them apart


@pytest.fixture
def x(rng):
    return rng.standard_normal((N, L, D))


@pytest.fixture
def picture(rng):
    return rng.standard_normal((N, 3, 5, D))


@pytest.fixture
def context(rng):
    return rng.standard_normal((N, Lk, Dc))


@pytest.mark.parametrize("bias", [True, False])
def test_self_attention_gradient(x, bias):
    check_module(Attention(D, 2, bias=bias), {"x": x})


def test_cross_attention_gradient(x, context):
    check_module(Attention(D, 4, Dc), {"x": x, "context": context})


def test_gated_projection_and_feed_forward_gradient(x):
    check_module(GatedProjection(D, 12), {"x": x})
    check_module(FeedForward(D), {"x": x}, samples=60)


def test_transformer_block_gradient(x, context):
    for only_cross in (False, True):
        check_module(BasicTransformerBlock(D, 2, Dc, only_cross), {"x": x, "context": context}, samples=40)


@pytest.mark.parametrize(("linear_projection", "depth"), [(False, 1), (True, 1), (False, 2)])
def test_transformer_gradient(picture, context, linear_projection, depth):
    transformer = Transformer2DModel(D, 2, Dc, depth=depth, groups=4, linear_projection=linear_projection)
    check_module(transformer, {"x": picture, "context": context}, samples=15)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_block_gradient(picture, heads):
    check_module(AttentionBlock2D(D, heads=heads, groups=4), {"x": picture}, samples=40)


def test_cross_attention_sees_the_context_and_not_itself(rng, x, context):
    """A context of one token: every query gets that token's value."""
    attention = Attention(D, 2, Dc).initialise(rng).astype("float64")
    one = context[:, :1]
    value = one @ attention.to_v.weight.data @ attention.to_out[0].weight.data + attention.to_out[0].bias.data
    np.testing.assert_allclose(attention(x, one), np.repeat(value, L, axis=1), atol=1e-12)


def test_the_gate_is_the_second_half(rng, x):
    layer = GatedProjection(D, 3).initialise(rng).astype("float64")
    h = x @ layer.proj.weight.data + layer.proj.bias.data
    np.testing.assert_allclose(layer(x), h[..., :3] * gelu(h[..., 3:])[0], atol=1e-12)


def test_linear_and_convolution_projections_are_the_same_arithmetic(rng, picture, context):
    conv, linear = (Transformer2DModel(D, 2, Dc, groups=4, linear_projection=p).initialise(rng) for p in (False, True))
    for ours, theirs in zip(linear.parameters(), conv.parameters()):
        ours.data = theirs.data.reshape(ours.data.shape)
    picture, context = picture.astype("f"), context.astype("f")
    np.testing.assert_allclose(linear(picture, context), conv(picture, context), atol=1e-6)


@pytest.mark.parametrize("block", [Transformer2DModel(D, 2, Dc, groups=4), AttentionBlock2D(D, groups=4)])
def test_with_its_last_layer_zero_a_block_is_the_identity(rng, picture, context, block):
    block.initialise(rng).astype("float64")
    last = block.proj_out if isinstance(block, Transformer2DModel) else block.to_out[0]
    inputs = (picture, context) if isinstance(block, Transformer2DModel) else (picture,)
    assert not np.allclose(block(*inputs), picture, atol=1e-3)
    for parameter in last.parameters():
        parameter.data *= 0
    np.testing.assert_array_equal(block(*inputs), picture)
