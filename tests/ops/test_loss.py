"""minild.ops.loss: gradients, values, refusals, and that no loss makes the host wait."""

import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild import backend
from minild.gradcheck import check
from minild.ops import loss

SHAPE = (2, 3, 5, 4)
LABELS = np.array([2, 0, 2])


def inputs_of(name, rng):
    if name == "cross_entropy":
        return {"logits": 2 * rng.standard_normal((3, 5)), "labels": LABELS}
    first, second = rng.standard_normal((2, *SHAPE))
    if name == "gaussian_cross_entropy":
        return {"logvar": first, "spread": second**2}
    return {"mean": first, "logvar": second} if name == "gaussian_kl" else {"prediction": first, "target": second}


LOSSES = ["mse", "l1", "gaussian_kl", "gaussian_cross_entropy", "cross_entropy"]


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(device, rng, name):
    check(getattr(loss, name), getattr(loss, f"{name}_backward"), inputs_of(name, rng), device=device)


@pytest.mark.parametrize(("name", "formula"), [
    ("mse", lambda a, b: (a - b) ** 2),
    ("l1", lambda a, b: abs(a - b)),
    ("gaussian_kl", lambda m, v: (m * m + math.exp(v) - 1 - v) / 2),
    ("gaussian_cross_entropy", lambda v, s: (math.log(2 * math.pi) + v + s / math.exp(v)) / 2),
])
def test_mean_of_elements(on_device, rng, name, formula):
    inputs = inputs_of(name, rng)
    expected = sum(formula(a, b) for a, b in zip(*(x.ravel() for x in inputs.values()))) / math.prod(SHAPE)
    np.testing.assert_allclose(on_device_scalar(on_device, name, inputs), expected, rtol=1e-12)


JUDGEMENTS = {"hinge": lambda s: max(0, 1 - s), "logistic": lambda s: math.log(1 + math.exp(-s))}


@pytest.mark.parametrize("target", [1, -1])
@pytest.mark.parametrize("name", JUDGEMENTS)
def test_judgement(device, rng, name, target):
    """The losses of a discriminator, whose second argument is no array."""
    op, logits = getattr(loss, name), 2 * rng.standard_normal((2, 3, 5, 1))
    check(op, getattr(loss, f"{name}_backward"), {"logits": logits}, target=target, device=device)
    expected = np.mean([JUDGEMENTS[name](target * value) for value in logits.ravel()])
    np.testing.assert_allclose(op(logits, target)[0], expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"^target: expected 1 for real or -1 for generated, got 0"):
        op(logits, 0)


def test_logistic_of_sure_logits_is_finite():
    logits = np.array([-1e4, 1e4], "f")
    y, cache = loss.logistic(logits, 1)
    np.testing.assert_allclose(y, 5e3)
    np.testing.assert_allclose(loss.logistic_backward(1.0, cache), [-0.5, 0])


def test_cross_entropy_value(on_device, rng):
    inputs = inputs_of("cross_entropy", rng)
    rows = zip(inputs["logits"], LABELS)
    expected = np.mean([math.log(sum(map(math.exp, row))) - row[label] for row, label in rows])
    np.testing.assert_allclose(on_device_scalar(on_device, "cross_entropy", inputs), expected, rtol=1e-12)


def on_device_scalar(on_device, name, inputs):
    def as_array(**arrays):
        y, cache = getattr(loss, name)(**arrays)
        return (np.asarray(y) if isinstance(y, np.generic) else y), cache

    return on_device(as_array, **inputs)


@pytest.mark.parametrize("name", [*LOSSES, *JUDGEMENTS])
def test_no_wait_for_the_device(rng, name):
    inputs = {"logits": rng.standard_normal(SHAPE)} if name in JUDGEMENTS else inputs_of(name, rng)
    inputs = {key: backend.to_device(x, "double") for key, x in inputs.items()}
    if name in JUDGEMENTS:
        inputs["target"] = -1
    with count_synchronisations() as counter:
        _, cache = getattr(loss, name)(**inputs)
        getattr(loss, f"{name}_backward")(1.0, cache)
    assert counter.reasons == []


def test_float32_stays_float32(rng):
    for name in LOSSES:
        inputs = {k: x.astype("f") if x.dtype.kind == "f" else x for k, x in inputs_of(name, rng).items()}
        y, cache = getattr(loss, name)(**inputs)
        gradients = getattr(loss, f"{name}_backward")(1.0, cache)
        for x in (y, *(gradients if isinstance(gradients, tuple) else (gradients,))):
            assert x.dtype == np.float32


def test_cross_entropy_of_large_logits(on_device):
    inputs = {"logits": np.array([[1e4, 0.0], [0.0, 1e4]]), "labels": np.array([0, 0])}
    assert on_device_scalar(on_device, "cross_entropy", inputs) == 5e3


SECOND = {"mse": "target", "l1": "target", "gaussian_kl": "logvar", "gaussian_cross_entropy": "spread"}


@pytest.mark.parametrize(("name", "argument"), SECOND.items())
def test_wrong_argument_is_named(name, argument):
    op = getattr(loss, name)
    with pytest.raises(ValueError, match=rf"^{argument}: expected shape"):
        op(np.ones((2, 3)), np.ones((3,)))
    with pytest.raises(ValueError, match=rf"^{argument}: expected dtype"):
        op(np.ones((2, 3)), np.ones((2, 3), "f"))


def test_cross_entropy_names_a_wrong_argument():
    with pytest.raises(ValueError, match=r"^labels: expected shape"):
        loss.cross_entropy(np.ones((2, 3)), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"^labels: expected integers"):
        loss.cross_entropy(np.ones((2, 3)), np.array([0.0, 1.0]))
