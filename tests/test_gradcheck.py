"""Tests of the test: faulty backwards of every usual kind are caught, and the hint says what they are."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from minild.gradcheck import GradientError, check, check_module


class Cache(NamedTuple):
    a: Any
    b: Any = None


RNG = np.random.default_rng(3)
X = RNG.standard_normal((3, 5))
W = RNG.standard_normal((5, 4))
B = RNG.standard_normal(4)


def affine(x, w, b=None):
    y = x @ w
    return (y if b is None else y + b), Cache(x, w)


def affine_backward(dy, cache):
    return dy @ cache.b.T, cache.a.T @ dy, dy.sum(axis=0)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, Cache(y)


def softmax_backward(dy, cache):
    y = cache.a
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def normalise(x):
    rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    xhat = (x - x.mean(axis=-1, keepdims=True)) * rstd
    return xhat, Cache(xhat, rstd)


def normalise_backward(dy, cache, through_mean=True, through_variance=True):
    xhat, rstd = cache
    dx = dy.copy()
    if through_mean:
        dx -= dy.mean(axis=-1, keepdims=True)
    if through_variance:
        dx -= xhat * (dy * xhat).mean(axis=-1, keepdims=True)
    return dx * rstd


def mean_square(x, target):
    return np.mean((x - target) ** 2), Cache(x, target)


def caught(op, backward, inputs, *words, **keywords):
    with pytest.raises(GradientError) as error:
        check(op, backward, inputs, **keywords)
    for word in words:
        assert word in str(error.value)


def test_right_backwards_pass():
    assert check(affine, affine_backward, {"x": X, "w": W, "b": B}) < 1e-8
    assert check(softmax, softmax_backward, {"x": X}) < 1e-8
    assert check(normalise, normalise_backward, {"x": X}) < 1e-8


def test_inputs_drawn_by_the_same_seed_do_not_hide_a_transposed_gradient():
    """With dy = x, which both would be the first numbers of default_rng(0), xᵀ dy is symmetric."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((5, 4)), "w": rng.standard_normal((4, 4)), "b": rng.standard_normal(4)}

    def transposed(dy, cache):
        dx, dw, db = affine_backward(dy, cache)
        return dx, dw.T, db

    caught(affine, transposed, inputs, "w")
    assert check(affine, affine_backward, inputs) < 1e-8


def test_large_array_is_sampled_and_passes():
    big = np.random.default_rng(0).standard_normal((40, 50))
    assert check(softmax, softmax_backward, {"x": big}) < 1e-6


def test_absent_argument_is_skipped():
    check(affine, lambda dy, cache: (*affine_backward(dy, cache)[:2], None), {"x": X, "w": W, "b": None})


def test_inputs_in_float32_are_checked_in_float64():
    assert check(affine, affine_backward, {"x": X.astype("f"), "w": W.astype("f"), "b": B.astype("f")}) < 1e-8


def test_tuple_of_outputs():
    def both(x, w):
        return (x * 2, x @ w, np.arange(3)), Cache(x, w)

    def backward(dy, cache):
        return dy[0] * 2 + dy[1] @ cache.b.T, cache.a.T @ dy[1]

    check(both, backward, {"x": X, "w": W})
    caught(both, lambda dy, cache: (dy[1] @ cache.b.T, cache.a.T @ dy[1]), {"x": X, "w": W}, "both, x")


def test_scalar_loss():
    def right(dy, cache):
        return dy * 2 * (cache.a - cache.b) / cache.a.size

    inputs = {"x": X, "target": X[::-1] + 0.5}
    check(mean_square, right, inputs, differentiable=["x"])
    caught(mean_square, lambda dy, c: right(dy, c) * 15, inputs, "sum taken for a mean over 15", differentiable=["x"])
    caught(mean_square, lambda dy, c: right(dy, c) / dy, inputs, "constant factor", differentiable=["x"])


def test_constant_ratios_are_named():
    caught(softmax, lambda dy, c: 0 * dy, {"x": X}, "softmax, x", "all zero", "not computed")
    caught(softmax, lambda dy, c: -softmax_backward(dy, c), {"x": X}, "a sign", "-1")
    caught(softmax, lambda dy, c: 2 * softmax_backward(dy, c), {"x": X}, "is 2 everywhere")
    caught(softmax, lambda dy, c: softmax_backward(dy, c) / 5, {"x": X}, "mean over 5 taken for a sum")
    caught(softmax, lambda dy, c: softmax_backward(dy, c) * 5, {"x": X}, "sum taken for a mean over 5")


def test_missing_terms():
    caught(softmax, lambda dy, c: dy * c.a, {"x": X}, "missing term")
    caught(normalise, lambda dy, c: normalise_backward(dy, c, through_mean=False), {"x": X}, "missing term", "axis 1")
    caught(normalise, lambda dy, c: normalise_backward(dy, c, through_variance=False), {"x": X}, "missing term")


def test_message_names_index_and_values():
    def off_at_one_place(dy, cache):
        dx = softmax_backward(dy, cache)
        dx[2, 3] += 1
        return dx

    caught(softmax, off_at_one_place, {"x": X}, "(2, 3)", "analytic", "numeric", "right at 14 of 15")


def test_fault_outside_the_sample_is_seen():
    def off_at_one_place(dy, cache):
        dx = softmax_backward(dy, cache)
        dx[-1, -1] += 1
        return dx

    big = np.random.default_rng(0).standard_normal((40, 50))
    caught(softmax, off_at_one_place, {"x": big}, "random direction", samples=5)


def test_mutations():
    def writes_dy(dy, cache):
        dx = softmax_backward(dy, cache)
        dy *= 2
        return dx

    def writes_cache(dy, cache):
        dx = softmax_backward(dy, cache)
        cache.a[...] = 0
        return dx

    def writes_input(x):
        x -= x.max()
        return softmax(x)

    caught(softmax, writes_dy, {"x": X}, "changed dy")
    caught(softmax, writes_cache, {"x": X}, "changed the cache")
    before = X.copy()
    caught(writes_input, softmax_backward, {"x": X}, "changed its inputs")
    np.testing.assert_array_equal(X, before)


def test_wrong_axis_shape_dtype_and_count():
    def wrong_axis(dy, cache):
        return cache.a * (dy - (dy * cache.a).sum(axis=0, keepdims=True))

    square = np.random.default_rng(5).standard_normal((4, 4))
    inputs = {"x": X, "w": W, "b": B}
    caught(softmax, wrong_axis, {"x": X}, "wrong axis")
    caught(softmax, lambda dy, c: softmax_backward(dy, c).T, {"x": X}, "shape (5, 3)", "(3, 5)")
    caught(softmax, lambda dy, c: softmax_backward(dy, c).T, {"x": square}, "transposed")
    caught(softmax, lambda dy, c: softmax_backward(dy, c)[::-1], {"x": X}, "wrong order")
    caught(softmax, lambda dy, c: softmax_backward(dy, c).astype("f"), {"x": X}, "dtype float32")
    caught(softmax, lambda dy, c: dy * np.nan, {"x": X}, "NaN")
    caught(affine, lambda dy, c: affine_backward(dy, c)[:2], inputs, "2 gradients for 3")
    caught(affine, lambda dy, c: (*affine_backward(dy, c)[:2], None), inputs, "affine, b", "None")


class Parameter:
    def __init__(self, data):
        self.data, self.grad = data, np.zeros_like(data)


class Dense:
    """The smallest module: what check_module asks of one, with faults on request."""

    def __init__(self, fault=None):
        self.weight, self.bias, self.fault = Parameter(np.zeros((5, 4), "f")), Parameter(np.zeros(4, "f")), fault

    def named_parameters(self):
        return [("weight", self.weight), ("bias", self.bias)]

    def astype(self, dtype):
        for _, parameter in self.named_parameters():
            parameter.data, parameter.grad = parameter.data.astype(dtype), parameter.grad.astype(dtype)

    def zero_grad(self):
        for _, parameter in self.named_parameters():
            parameter.grad = np.zeros_like(parameter.data)

    def __call__(self, x):
        return self.forward(x)[0] + (self.fault == "inference")

    def forward(self, x):
        return affine(x, self.weight.data, self.bias.data)

    def backward(self, dy, cache):
        dx, dweight, dbias = affine_backward(dy, cache)
        if self.fault == "overwrite":
            self.weight.grad, self.bias.grad = dweight, dbias
        else:
            self.weight.grad = self.weight.grad + dweight
            self.bias.grad = self.bias.grad + (0 if self.fault == "bias" else dbias)
        if self.fault == "count":
            return dx, dx
        return (-dx if self.fault == "sign" else dx), None  # None: of a context left out


def test_module_passes():
    assert check_module(Dense(), {"x": X}) < 1e-8


@pytest.mark.parametrize(("fault", "words"), [
    ("sign", "Dense, x.*a sign"),
    ("bias", "Dense, bias.*all zero"),
    ("count", "2 gradients for 1"),
    ("overwrite", "must add to weight.grad"),
    ("inference", "differs from forward's y"),
])
def test_module_faults(fault, words):
    with pytest.raises(GradientError, match=words):
        check_module(Dense(fault), {"x": X})
