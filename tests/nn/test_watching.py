"""minild.nn.watching: attention's probabilities, seen and replaced."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minild
from minild.engine.cores import WorkerThreads
from minild.gradcheck import check_module
from minild.nn import watching
from minild.nn.attention import Attention, BasicTransformerBlock
from minild.nn.watching import Place, watch_layers
from minild.ops import attention as textbook

N, L, Lk, D, Dc, HEADS = 2, 5, 3, 8, 6, 2
CROSS, SELF = Place("attn2", True, L, Lk), Place("attn1", False, L, L)


@pytest.fixture
def block(rng):
    return BasicTransformerBlock(D, HEADS, Dc).initialise(rng)


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((N, L, D), dtype="f"), rng.standard_normal((N, Lk, Dc), dtype="f")


def head(x, n, i):
    """Head i of row n: (L, d)."""
    d = x.shape[2] // HEADS
    return x[n, :, i * d : (i + 1) * d]


def test_probabilities_are_those_of_the_formula(rng, inputs):
    x, context = inputs
    layer, seen = Attention(D, HEADS, Dc).initialise(rng), []
    with watch_layers(layer, lambda place, weights: seen.append((place, weights))):
        layer(x, context)
    [(place, weights)] = seen
    assert place == ("", True, L, Lk) and weights.shape == (N, HEADS, L, Lk)
    q, k = layer.to_q(x), layer.to_k(context)
    for n in range(N):
        for i in range(HEADS):
            scores = head(q, n, i) @ head(k, n, i).T / math.sqrt(D / HEADS)
            expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            np.testing.assert_allclose(weights[n, i], expected, rtol=1e-5)


def test_layers_are_named_and_only_those_that_are_wanted_are_seen(block, inputs):
    seen = []
    with watch_layers(block, lambda place, weights: seen.append(place)):
        block(*inputs)
    assert seen == [SELF, CROSS]
    seen.clear()
    with watch_layers(block, lambda place, weights: seen.append(place), wants=lambda place: place.cross):
        block(*inputs)
    block(*inputs)  # nobody watches any more
    with watch_layers(Attention(D, HEADS), lambda place, weights: seen.append(place)):
        block(*inputs)  # of another model
    assert seen == [CROSS]


def test_watching_changes_no_bit(block, inputs):
    expected = block(*inputs)
    with watch_layers(block, lambda place, weights: None):
        np.testing.assert_array_equal(block(*inputs), expected)


def test_what_nobody_wants_is_left_to_the_engine(block, inputs, monkeypatch):
    def forbidden(q, k, v, heads):
        raise AssertionError("computed for nobody")

    engine = watching.run
    monkeypatch.setattr(watching, "run", lambda op, *arguments: engine(textbook, *arguments))
    monkeypatch.setattr(watching, "attention", forbidden)
    block(*inputs)
    with watch_layers(block, lambda place, weights: None, wants=lambda place: False):
        block(*inputs)
    with watch_layers(block, lambda place, weights: None), pytest.raises(AssertionError, match="for nobody"):
        block(*inputs)


def test_what_is_given_back_stands_in_their_place(block, inputs):
    x, context = inputs
    only_second = np.zeros((N, HEADS, L, Lk), np.float32)
    only_second[..., 1] = 1
    with watch_layers(block.attn2, lambda place, weights: only_second):
        y = block.attn2(x, context)
    out = block.attn2.to_out[0]
    np.testing.assert_allclose(y, np.repeat(out(block.attn2.to_v(context[:, 1:2])), L, axis=1), atol=1e-6)


def test_their_own_probabilities_given_back_give_the_same(block, inputs):
    expected = block(*inputs)
    with watch_layers(block, lambda place, weights: weights.copy()):
        np.testing.assert_allclose(block(*inputs), expected, atol=1e-5)


def test_the_inner_watcher_sees_what_the_outer_one_left(block, inputs):
    seen, halved = [], lambda place, weights: weights / 2 if place.cross else None
    with watch_layers(block, halved), watch_layers(block, lambda place, weights: seen.append(weights.sum(-1))):
        block(*inputs)
    np.testing.assert_allclose(seen[0], 1, rtol=1e-6)
    np.testing.assert_allclose(seen[1], 0.5, rtol=1e-6)


def test_a_watched_layer_trains(rng):
    x, context, seen = rng.standard_normal((N, L, D)), rng.standard_normal((N, Lk, Dc)), []
    layer = Attention(D, HEADS, Dc)
    with watch_layers(layer, lambda place, weights: seen.append(place)):
        check_module(layer, {"x": x, "context": context}, samples=20)
    assert seen


def test_replaced_probabilities_must_fit_and_have_no_backward(block, inputs):
    with watch_layers(block, lambda place, weights: weights[:1]):
        with pytest.raises(ValueError, match=r"attn1: expected probabilities float32 \(2, 2, 5, 5\), got float32 \(1,"):
            block(*inputs)
    with watch_layers(block, lambda place, weights: weights.copy()):
        with pytest.raises(ValueError, match="attn1: replaced probabilities have no backward"):
            block.forward(*inputs)


def test_it_holds_for_the_librarys_own_threads_and_no_others(block, inputs):
    seen = []
    with watch_layers(block, lambda place, weights: seen.append(place)):
        with WorkerThreads(2) as own:
            list(own.map(lambda _: block(*inputs), range(3)))
        assert len(seen) == 6
        with ThreadPoolExecutor(1) as foreign:
            list(foreign.map(lambda _: block(*inputs), range(3)))
    assert len(seen) == 6


def test_within_the_textbook_too(block, inputs):
    seen = []
    with minild.using("textbook"), watch_layers(block, lambda place, weights: seen.append(weights.sum(-1))):
        block(*inputs)
    np.testing.assert_allclose(seen, 1, rtol=1e-6)
