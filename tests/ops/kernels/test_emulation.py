"""The kernels, run on the CPU, give what the plain ops give in float64. Under the sanitizers in test_sanitizers.py."""

import numpy as np
import pytest

from minild import backend
from minild.nn.module import Module, Parameter
from minild.ops import activation, attention, conv, norm, winograd
from minild.ops.kernels import norm as norm_kernels
from minild.training.optimizer import AdamW, ExponentialMovingAverage

from . import emulator
from .emulator import emulated  # noqa: F401 a fixture

pytestmark = [
    pytest.mark.skipif(emulator.GXX is None, reason="no g++"),
    pytest.mark.usefixtures("emulated"),
]
TOLERANCE = {"float32": 1e-5, "float16": 4e-3}
DTYPES = list(TOLERANCE)


def compare(op, op_backward, inputs, dtype, rng, **settings):
    """y and every gradient, to a share of the largest value of each."""
    inputs = [x.astype(dtype) for x in inputs]
    y, cache = op(*[x.astype(np.float64) for x in inputs], **settings)
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected = op_backward(dy.astype(np.float64), cache)
    got_y, got_cache = op(*inputs, **settings)
    got = op_backward(dy, got_cache)
    expected, got = ([y, *g] if isinstance(g, tuple) else [y, g] for y, g in ((y, expected), (got_y, got)))
    for a, b in zip(expected, got, strict=True):
        assert b.dtype == dtype
        np.testing.assert_allclose(b, a, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(a).max()))


def affine_inputs(rng, shape, offset=1.5):
    return offset + 2 * rng.standard_normal(shape), rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "groups"), [
    ((2, 5, 3, 6), 3),  # few channels: many rows of pixels in a block, one tile
    ((1, 3, 3, 300), 1),  # a group wider than a block
    ((2, 3, 2, 330), 33),  # two blocks across, the second not full
    ((1, 1, 1, 40), 4),  # a single pixel
])
def test_group_norm(rng, shape, groups, dtype):
    compare(norm.group_norm, norm.group_norm_backward, affine_inputs(rng, shape), dtype, rng, groups=groups)
    compare(norm.group_norm_silu, norm.group_norm_silu_backward, affine_inputs(rng, shape), dtype, rng, groups=groups)


@pytest.mark.parametrize(("shape", "groups"), [((2, 11, 7, 64), 32), ((1, 7, 5, 96), 4)])
def test_group_norm_over_many_tiles(monkeypatch, rng, shape, groups):
    monkeypatch.setattr(norm_kernels, "PIXELS", 2)
    compare(norm.group_norm, norm.group_norm_backward, affine_inputs(rng, shape), "float32", rng, groups=groups)


def test_group_norm_far_from_zero(rng):
    """Float32 would lose the variance if the mean were not taken off before anything is squared."""
    x, gamma, beta = (a.astype("f") for a in affine_inputs(rng, (1, 16, 12, 8), offset=3000))
    expected = norm.group_norm(*(a.astype(float) for a in (x, gamma, beta)), 2)[0]
    np.testing.assert_allclose(norm.group_norm(x, gamma, beta, 2)[0], expected, atol=2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 70), (21, 32)])
def test_layer_norm(rng, shape, dtype):
    compare(norm.layer_norm, norm.layer_norm_backward, affine_inputs(rng, shape), dtype, rng)


def test_layer_norm_over_many_chunks_of_rows(monkeypatch, rng):
    monkeypatch.setattr(norm_kernels, "PIXELS", 1)
    compare(norm.layer_norm, norm.layer_norm_backward, affine_inputs(rng, (29, 40)), "float32", rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["silu", "quick_gelu", "gelu", "geglu"])
def test_activation(rng, name, dtype):
    op, backward = getattr(activation, name), getattr(activation, f"{name}_backward")
    compare(op, backward, [3 * rng.standard_normal((7, 3, 26))], dtype, rng)  # two blocks, the last not full


def test_activations_far_from_zero():
    x = np.array([[-1e4, -100, -20, -4, 0, 4, 20, 100, 1e4]], "f")
    for name in ("silu", "quick_gelu", "gelu"):
        op, backward = getattr(activation, name), getattr(activation, f"{name}_backward")
        (y, cache), (expected, expected_cache) = op(x), op(x.astype(float))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(
            backward(np.ones_like(x), cache), backward(np.ones(x.shape), expected_cache), atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("Lq", "Lk", "D", "heads", "causal"), [
    (70, 5, 12, 2, False),  # two tiles of queries, most of the only tile of keys empty
    (3, 130, 40, 1, False),  # three tiles of keys; more than one slice of columns
    (67, 67, 36, 2, True),
])
def test_attention(rng, Lq, Lk, D, heads, causal, dtype):
    inputs = [rng.standard_normal((1, L, D)) for L in (Lq, Lk, Lk)]
    compare(attention.attention, attention.attention_backward, inputs, dtype, rng, heads=heads, causal=causal)


def test_attention_of_two_images_with_the_widest_head(rng):
    inputs = [rng.standard_normal((2, L, 160)) for L in (2, 3, 3)]
    compare(attention.attention, attention.attention_backward, inputs, "float32", rng, heads=1)


def test_attention_with_large_scores(rng):
    """A later tile's maximum may be far above or far below that of the earlier ones: nothing overflows."""
    q, k, v = (rng.standard_normal((1, L, 8)) for L in (2, 130, 130))
    for order in (slice(None), slice(None, None, -1)):
        k[0, :, 0] = np.linspace(-300, 300, 130)[order]
        q[..., 0] = 1
        y = attention.attention(*(x.astype("f") for x in (q, k, v)), 1)[0]
        np.testing.assert_allclose(y, attention.attention(q, k, v, 1)[0], atol=1e-4)


def test_a_head_too_wide_for_the_kernel_is_left_to_the_plain_op(rng):
    inputs = [rng.standard_normal((1, L, 161)) for L in (2, 3, 3)]
    compare(attention.attention, attention.attention_backward, inputs, "float32", rng, heads=1)


@pytest.mark.parametrize("margins", [((1, 1), (1, 1)), ((0, 2), (1, 0))])
def test_convolution(rng, margins, monkeypatch):
    """Tiles that reach over the right and the lower edge, and two pieces of images."""
    monkeypatch.setattr(winograd, "LEAST_TILES", 1)
    monkeypatch.setattr(backend, "PIECE", 8 * 36 * 18)
    inputs = [rng.standard_normal(shape) for shape in [(3, 7, 8, 17), (3, 3, 17, 18), (18,)]]
    single = [x.astype("f") for x in inputs]
    assert conv.algorithm(single[0], single[1], 1, margins) == "winograd"
    compare(conv.conv2d, conv.conv2d_backward, inputs, "float32", rng, padding=margins)
    without_bias = conv.conv2d(*single[:2], padding=margins)[0]
    np.testing.assert_allclose(without_bias, conv.conv2d(*inputs[:2], padding=margins)[0], atol=5e-4)


class _Module(Module):
    """A matrix, whose weights decay, and a vector."""

    def __init__(self, start):
        self.matrix, self.vector = Parameter((20, 16), 0), Parameter((7,), 0)
        self.matrix.data, self.vector.data = start[:320].reshape(20, 16), start[320:]


def test_adamw_and_the_moving_average(rng):
    start, gradients = rng.standard_normal(327), rng.standard_normal((3, 327))
    ends = []
    for dtype in (np.float64, np.float32):
        module = _Module(start.astype(dtype))
        optimizer, average = AdamW(module, weight_decay=0.1), ExponentialMovingAverage(module)
        for gradient in gradients:
            optimizer.gradient[:] = gradient
            optimizer.step(0.05)
            average.update()
        ends.append([optimizer.weights, optimizer.m, optimizer.v, average.average])
    for a, b in zip(*ends):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, atol=2e-6)
    assert abs(ends[0][0] - start).mean() > 0.01
