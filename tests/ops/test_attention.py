"""minild.ops.attention: gradients, values, refusals."""

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops.attention import attention, attention_backward, merge_heads, split_heads


def tokens(rng, Lq, Lk, D, N=2):
    return {"q": rng.standard_normal((N, Lq, D)), "k": rng.standard_normal((N, Lk, D)),
            "v": rng.standard_normal((N, Lk, D))}


def plain_attention(q, k, v, heads, causal):
    """One query of one head of one picture at a time."""
    y, d = np.zeros_like(q), q.shape[2] // heads
    for n in range(len(q)):
        for h in range(heads):
            slice_h = slice(h * d, (h + 1) * d)
            for i in range(q.shape[1]):
                seen = i + 1 if causal else k.shape[1]
                score = np.array([q[n, i, slice_h] @ k[n, j, slice_h] / np.sqrt(d) for j in range(seen)])
                weight = np.exp(score) / np.exp(score).sum()
                y[n, i, slice_h] = sum(weight[j] * v[n, j, slice_h] for j in range(seen))
    return y


CASES = [(5, 3, 6, 2, False), (3, 5, 6, 3, False), (4, 4, 6, 1, False), (5, 5, 6, 2, True), (4, 1, 3, 3, False)]


@pytest.mark.parametrize(("Lq", "Lk", "D", "heads", "causal"), CASES)
def test_gradient(device, rng, Lq, Lk, D, heads, causal):
    check(attention, attention_backward, tokens(rng, Lq, Lk, D), heads=heads, causal=causal, device=device)


@pytest.mark.parametrize(("Lq", "Lk", "D", "heads", "causal"), CASES)
def test_value(on_device, rng, Lq, Lk, D, heads, causal):
    inputs = tokens(rng, Lq, Lk, D)
    y = on_device(attention, **inputs, heads=heads, causal=causal)
    np.testing.assert_allclose(y, plain_attention(**inputs, heads=heads, causal=causal), atol=1e-12)


def test_float32_stays_float32(on_device, rng):
    inputs = {name: x.astype("f") for name, x in tokens(rng, 5, 3, 6).items()}
    assert on_device(attention, **inputs, heads=2).dtype == np.float32


def test_a_causal_query_sees_nothing_later(on_device, rng):
    inputs = tokens(rng, 5, 5, 6)
    before = on_device(attention, **inputs, heads=2, causal=True)
    for x in inputs.values():
        x[:, 3:] += 1
    after = on_device(attention, **inputs, heads=2, causal=True)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.allclose(before[:, 3:], after[:, 3:])


def test_merge_undoes_split(rng):
    x = rng.standard_normal((2, 5, 6))
    np.testing.assert_array_equal(merge_heads(split_heads(x, 3)), x)
    np.testing.assert_array_equal(split_heads(x, 3)[1, 2, 4], x[1, 4, 4:6])


@pytest.mark.parametrize(("name", "shapes", "heads", "causal"), [
    ("q", ((5, 6), (2, 3, 6), (2, 3, 6)), 2, False),
    ("k", ((2, 5, 6), (2, 3, 4), (2, 3, 6)), 2, False),
    ("k", ((2, 5, 6), (1, 3, 6), (1, 3, 6)), 2, False),
    ("v", ((2, 5, 6), (2, 3, 6), (2, 4, 6)), 2, False),
    ("heads", ((2, 5, 6), (2, 3, 6), (2, 3, 6)), 4, False),
    ("k", ((2, 5, 6), (2, 3, 6), (2, 3, 6)), 2, True),
])
def test_wrong_argument_is_named(name, shapes, heads, causal):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        attention(*map(np.ones, shapes), heads, causal)


def test_wrong_dtype_is_named():
    with pytest.raises(ValueError, match=r"^v: expected dtype float64"):
        attention(np.ones((1, 2, 4)), np.ones((1, 2, 4)), np.ones((1, 2, 4), "f"), 2)
