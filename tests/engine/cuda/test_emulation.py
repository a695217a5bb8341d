"""The kernels, run on the CPU, give what the textbook gives in float64. Under the sanitizers in test_sanitizers.py."""

import numpy as np
import pytest

from engine import cases
from minild import ops
from minild.engine import memory, run
from minild.engine.cpu import winograd
from minild.engine.cuda import norm as cuda_norm
from minild.engine.table import OPS
from minild.nn import Module, Parameter
from minild.training.optimizer import AdamW, ExponentialMovingAverage

from . import emulator
from .emulator import emulated  # noqa: F401 a fixture

pytestmark = [
    pytest.mark.skipif(emulator.GXX is None, reason="no g++"),
    pytest.mark.usefixtures("emulated"),
]
TOLERANCE = {"float32": 1e-5, "float16": 4e-3}
ROWS = cases.rows("cuda")
EVERY = [(row, case) for row, several in cases.GPU.items() for case in several]


def compare(row, case, rng, dtype, arrays=None):
    """y and every gradient of the row that the table gives, to a share of the largest value of each."""
    name, fast = row[0], ROWS[row]
    arrays = cases.arguments(case, rng, dtype) if arrays is None else arrays
    assert OPS[name].implementation(arrays, case.settings) is fast, "the table gives another row for this case"
    y, call = run(OPS[name].op, *arrays, **case.settings)
    dy = cases.upstream(y, rng)
    got = [*cases.flat(y), *cases.flat(call.backward(dy))]
    assert all(x.dtype == dtype for x in got)
    tolerance = max(TOLERANCE[dtype], fast.tolerance) if dtype == "float32" else TOLERANCE[dtype]
    cases.assert_within(got, cases.textbook(name, arrays, case.settings, dy), tolerance, f"{row}")


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("row", "case"), EVERY)
def test_row_is_the_textbook(rng, monkeypatch, row, case, dtype):
    if row == ("conv2d", "winograd"):
        if dtype == "float16":
            pytest.skip("float32 alone")
        monkeypatch.setattr(winograd, "LEAST_TILES", 1)
        monkeypatch.setattr(memory, "PIECE", 16 * 36 * 18)  # two pieces of images
    compare(row, case, rng, dtype)


@pytest.mark.parametrize(("shape", "groups"), [((2, 11, 7, 64), 32), ((1, 7, 5, 96), 4)])
def test_group_norm_over_many_tiles(monkeypatch, rng, shape, groups):
    monkeypatch.setattr(cuda_norm, "PIXELS", 2)
    compare(("group_norm", "norm"), cases.case(shape, shape[-1:], shape[-1:], groups=groups), rng, "float32")


def test_group_norm_far_from_zero(rng):
    """Float32 would lose the variance if the mean were not taken off before anything is squared."""
    x, gamma, beta = 3000 + 2 * rng.standard_normal((1, 16, 12, 8)), rng.standard_normal(8), rng.standard_normal(8)
    x, gamma, beta = (a.astype("f") for a in (x, gamma, beta))
    expected = ops.group_norm(*(a.astype(float) for a in (x, gamma, beta)), 2)[0]
    np.testing.assert_allclose(run(ops.group_norm, x, gamma, beta, 2)[0], expected, atol=2e-3)


def test_layer_norm_over_many_chunks_of_rows(monkeypatch, rng):
    monkeypatch.setattr(cuda_norm, "PIXELS", 1)
    compare(("layer_norm", "norm"), cases.case((29, 40), (40,), (40,)), rng, "float32")


def test_activations_far_from_zero():
    x = np.array([[-1e4, -100, -20, -4, 0, 4, 20, 100, 1e4]], "f")
    for op in (ops.silu, ops.quick_gelu, ops.gelu):
        (y, call), (expected, expected_call) = run(op, x), run(op, x.astype(float))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(
            call.backward(np.ones_like(x)), expected_call.backward(np.ones(x.shape)), atol=1e-5)


def test_attention_with_large_scores(rng):
    """A later tile's maximum may be far above or far below that of the earlier ones: nothing overflows."""
    q, k, v = (rng.standard_normal((1, L, 8)) for L in (2, 130, 130))
    for order in (slice(None), slice(None, None, -1)):
        k[0, :, 0] = np.linspace(-300, 300, 130)[order]
        q[..., 0] = 1
        y = run(ops.attention, *(x.astype("f") for x in (q, k, v)), 1)[0]
        np.testing.assert_allclose(y, ops.attention(q, k, v, 1)[0], atol=1e-4)


def test_a_head_too_wide_for_the_kernel_is_left_to_another_row(rng):
    arrays = [rng.standard_normal((1, L, 161)).astype("f") for L in (2, 3, 3)]
    assert OPS["attention"].implementation((*arrays, 1), {}) not in ROWS.values()


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
