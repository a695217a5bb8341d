"""The gradient checker looks at the forward, too: what keeps it from judging is named, and no backward accused."""

import itertools

import numpy as np
import pytest

from minild.gradcheck import GradientError, check, check_module
from minild.nn.layers import Linear
from minild.nn.module import Module, Parameter

SCALES = [10.0**k for k in range(-9, 13, 3)]


def square(x):
    return x * x, x


def square_backward(dy, x):
    return 2 * dy * x


def told(op, op_backward, inputs, words, **settings):
    """check fails with exactly one line that has these words, and accuses no backward."""
    with pytest.raises(GradientError, match=words) as caught:
        check(op, op_backward, inputs, **settings)
    message = str(caught.value)
    assert "\n" not in message and "Hint" not in message
    return message


def test_an_input_and_a_gradient_without_dimensions():
    assert check(square, square_backward, {"x": np.array(1.5)}) < 1e-8
    assert check(square, lambda dy, x: float(2 * dy * x), {"x": np.array(1.5)}) < 1e-8
    with pytest.raises(GradientError, match=r"analytic / numeric is 1\.5 everywhere"):
        check(square, lambda dy, x: 3 * dy * x, {"x": np.array(1.5)})


def test_a_number_for_a_gradient_of_an_array():
    for scalar in (1.0, np.float64(1.0), np.ones(())):
        words = r"gradient of shape \(\) for a value of shape \(3,\)"
        told(square, lambda dy, x, scalar=scalar: scalar, {"x": np.ones(3)}, words)


@pytest.mark.parametrize("value", [[1.0, 2.0], (1.0,), 2.0, [[1, 2], [3, 4]]])
def test_what_is_no_array_is_told(value):
    words = f"x: the input is a {type(value).__name__}: give a NumPy array of floats"
    told(square, square_backward, {"x": value}, words)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, bool])
def test_integers_are_told(dtype):
    inputs = {"x": np.ones(3, dtype)}
    told(square, square_backward, inputs, "no input has a gradient; x of integers has no gradient: give floats")
    told(square, square_backward, inputs, "the input holds .*, which has no gradient", differentiable=["x"])
    both = {"x": np.ones((2, 3), dtype), "weight": np.ones((3, 2))}
    told(lambda x, weight: (x @ weight, (x, weight)), lambda dy, c: (dy @ c[1].T, c[0].T @ dy), both,
         r"2 gradients for 1 \(weight\); x of integers has no gradient")


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_forward_that_gives_no_numbers(number):
    def spoilt(x):
        y = x * x
        y[1, 2] = float(number)
        return y, x

    words = rf"the forward gives {number} at index \(1, 2\) for these inputs"
    told(spoilt, square_backward, {"x": np.ones((3, 4))}, words)


def test_no_number_beside_the_inputs():
    def root(x):
        with np.errstate(invalid="ignore"):
            return np.sqrt(x), x

    inputs = {"x": np.array([4.0, 1e-6])}  # the step leads below zero
    words = r"the forward gives nan at index \(1,\) beside these inputs"
    told(root, lambda dy, x: dy / (2 * np.sqrt(x)), inputs, words)


def test_a_random_forward():
    rng = np.random.default_rng(0)

    def dropout(x):
        mask = rng.random(x.shape) < 0.5
        return x * mask, mask

    words, calls = "the forward is random, or keeps something from call to call", itertools.count()
    told(dropout, lambda dy, mask: dy * mask, {"x": np.ones((4, 5))}, words)
    told(lambda x: (x * next(calls), x), square_backward, {"x": np.ones(3)}, words)


class Noisy(Module):
    def __init__(self):
        self.weight, self.rng = Parameter((3,), 1.0), np.random.default_rng(0)

    def forward(self, x):
        return x * self.weight.value + self.rng.standard_normal(3), x

    def backward(self, dy, x):
        self.weight.accumulate((dy * x).sum(axis=0))
        return dy * self.weight.value


def test_a_random_module():
    with pytest.raises(GradientError, match="the forward is random, or keeps something"):
        check_module(Noisy(), {"x": np.ones((2, 3))})
    with pytest.raises(GradientError, match="x: the input is a list"):
        check_module(Linear(2, 3), {"x": [[1.0, 2.0]]})


def narrow(x):
    return x.astype(np.float32) ** 2, x


def narrow_within(x):
    return (x.astype(np.float32) ** 2).astype(np.float64) * 1.1, x


def test_a_forward_in_float32(rng):
    inputs = {"x": rng.standard_normal((3, 4))}
    told(narrow, square_backward, inputs, "y is float32 for inputs in float64")
    told(narrow_within, lambda dy, x: 2.2 * dy * x, inputs, "the forward computes in float32")
    for scale in (1e-3, 1e4):
        inputs = {"x": scale * rng.standard_normal((3, 4))}
        told(narrow_within, lambda dy, x: 2.2 * dy * x, inputs, "the forward computes in float32")


def relu(x):
    return np.maximum(x, 0), x


def test_kinks(rng):
    x = rng.standard_normal((3, 4))
    x[1, 2] = 0
    message = told(relu, lambda dy, x: dy * (x > 0), {"x": x}, r"the forward has a kink at index \(1, 2\)")
    assert "choose an input beside it" in message
    told(lambda x: (np.abs(x), x), lambda dy, x: dy * np.sign(x) + (x == 0) * dy, {"x": x}, "kink")
    told(lambda x: (x.clip(0, 1), x), lambda dy, x: dy * ((x > 0) & (x < 1)), {"x": x}, "kink")
    tied = np.array([[1.0, 3.0, 3.0], [2.0, 0.5, 1.0]])
    told(lambda x: (x.max(axis=1), x), lambda dy, x: dy[:, None] * (np.arange(3) == x.argmax(axis=1)[:, None]),
         {"x": tied}, "kink")


def test_a_wrong_backward_is_accused_though_there_is_a_kink(rng):
    x = rng.standard_normal((3, 4))
    x[1, 2] = 0
    for wrong in (lambda dy, x: 2 * dy * (x > 0), lambda dy, x: dy * (x >= -0.5), lambda dy, x: dy * (x > 0) + 1e-3):
        with pytest.raises(GradientError, match="Hint: "):
            check(relu, wrong, {"x": x})


def test_a_steep_but_smooth_forward_has_no_kink():
    def step(x):
        return np.tanh(300 * x), x

    with pytest.raises(GradientError, match="Hint: "):  # accused, as it should be
        check(step, lambda dy, x: dy * 299 / np.cosh(300 * x) ** 2, {"x": np.array([0.0, 0.001, 0.01])})


@pytest.mark.parametrize("op, slope, x", [
    (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, [1e-6, 1, -1]),  # a kink within the step
    (lambda x: np.where(x > 0, x, np.expm1(x)), lambda x: np.where(x > 0, 1, np.exp(x)), [0.0, 1, -1]),
    (lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0), [0.0, 0.2, -3]),
    (lambda x: 1 / x, lambda x: -1 / x**2, [1e-3, 2e-3]),
    (np.sqrt, lambda x: 0.5 / np.sqrt(x), [1e-4, 1.0]),
    (lambda x: np.sin(1e3 * x), lambda x: 1e3 * np.cos(1e3 * x), [0.3, -1.7, 0.01]),
])
def test_steep_curves_and_kinks_nearby_accuse_nobody(op, slope, x):
    inputs = {"x": np.array(x, float)}
    check(lambda x: (op(x), x), lambda dy, x: dy * slope(x), inputs)
    for factor in (1.01, 2, 0.5):
        with pytest.raises(GradientError, match="Hint"):
            check(lambda x: (op(x), x), lambda dy, x, k=factor: k * dy * slope(x), inputs)


def test_a_zero_gradient_that_rounding_may_hide_is_not_let_pass():
    for claimed in (0.0, 1e-4):
        told(lambda x: (x * 2 + 1e10, x), lambda dy, x, k=claimed: k * dy, {"x": np.ones(5)}, "cannot be judged")


def test_float32_in_a_part_of_the_forward(rng):
    inputs = {"x": rng.standard_normal((3, 4))}
    def partly(x):
        return np.exp(x.astype("f")).astype(float) + x, x

    told(partly, lambda dy, x: dy * (np.exp(x) + 1), inputs, "the forward computes in float32")


def test_what_is_not_differentiated_may_be_anything():
    check(lambda x, shape: (x.reshape(shape), x), lambda dy, x: dy.reshape(x.shape),
          {"x": np.ones(6), "shape": (2, 3)}, differentiable=["x"])
    check(lambda x: ((x * 2, None), x), lambda dy, x: 2 * dy[0], {"x": np.ones(3)})


def test_a_name_that_is_no_input():
    words = "differentiable names 'y', which is not among the inputs"
    told(square, square_backward, {"x": np.ones(3)}, words, differentiable=["y"])


def test_what_a_forward_must_return():
    x = {"x": np.ones(3)}
    told(lambda x: x, square_backward, x, "a forward returns the pair")
    told(lambda x: (x, x, x), square_backward, x, "a forward returns the pair")
    told(lambda x: (None, x), square_backward, x, "y holds nothing, which has no gradient")
    told(lambda x: ("y", x), square_backward, x, "y is a str, where an array is expected")
    told(lambda x: (x.astype(int), x), square_backward, x, "y holds int64, which has no gradient")
    told(lambda x: (x.astype(complex), x), square_backward, x, "y is complex128 for inputs in float64")


# Right backwards pass at every scale or are said not to be judged; wrong ones never pass.

RIGHT = {
    "square": (square, square_backward),
    "shifted": (lambda x: (x + 1e9, None), lambda dy, cache: dy),
    "scaled": (lambda x: (1e9 * x, None), lambda dy, cache: 1e9 * dy),
    "tanh": (lambda x: (np.tanh(x), x), lambda dy, x: dy / np.cosh(x.clip(-300, 300)) ** 2),
    "sum": (lambda x: (x.sum(), x.shape), lambda dy, shape: np.full(shape, dy)),
    "softmax": (
        lambda x: ((e := np.exp(x - x.max())) / e.sum(),) * 2,
        lambda dy, y: y * (dy - (dy * y).sum()),
    ),
    "mean removed": (lambda x: (x - x.mean(), None), lambda dy, cache: dy - dy.mean()),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", RIGHT)
def test_at_any_scale_the_right_passes_and_the_wrong_never_does(rng, name, scale):
    if name in ("tanh", "softmax") and scale > 10:
        pytest.skip("its gradient is zero there, and so is any multiple of it")
    op, backward = RIGHT[name]
    inputs = {"x": scale * (1 + rng.random((3, 4)))}
    try:
        check(op, backward, inputs)
        judged = True
    except GradientError as error:
        assert "cannot be judged at this scale" in str(error)
        judged = False
    for factor in (2, 1.01, -1, 0.5):
        with pytest.raises(GradientError) as caught:
            check(op, lambda dy, c, k=factor: k * backward(dy, c), inputs)
        assert "cannot be judged" in str(caught.value) or (judged and "Hint" in str(caught.value))
