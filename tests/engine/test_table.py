"""Every row of the engine's table, held to the textbook: y and all gradients, on shapes that reach each branch."""

import inspect

import numpy as np
import pytest

from engine import cases
from minild import backend
from minild.engine import inference, memory, run, using
from minild.engine.cpu import attention, conv, winograd
from minild.engine.table import NAMES, OPS

HOST = cases.rows("cpu")
EVERY = [(row, case) for row, several in cases.HOST.items() for case in several]


def test_every_row_has_its_cases():
    assert HOST.keys() == cases.HOST.keys()
    assert cases.rows("cuda").keys() == cases.GPU.keys()


def ids(value):
    return "-".join(value) if isinstance(value, tuple) and all(isinstance(v, str) for v in value) else None


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """All at once, as with arrays this small; or in many pieces, of a pixel, a token or a tile."""
    if request.param == "in pieces":
        monkeypatch.setattr(memory, "PIECE", 200)
        for module, least in ((attention, "LEAST_QUERIES"), (conv, "LEAST_ROWS"), (winograd, "TILES_AT_ONCE")):
            monkeypatch.setattr(module, least, 3)
    return request.param


@pytest.mark.parametrize(("dtype", "exactness"), [("float32", None), ("float64", 1e-11)])
@pytest.mark.parametrize(("row", "case"), EVERY, ids=ids)
def test_row_is_the_textbook(rng, monkeypatch, pieces, row, case, dtype, exactness):
    name, fast = row[0], HOST[row]
    arrays = cases.arguments(case, rng, dtype)
    if pieces == "in pieces" and row == ("attention", "sliced_attention"):
        monkeypatch.setattr(memory, "PIECE", 40_000)  # a few dozen slices are enough
    if dtype == "float64" and row[1] == "winograd":
        assert not fast.serves(*arrays, **case.settings)  # checks in float64 are to be exact
    else:
        assert OPS[name].implementation(arrays, case.settings) is fast, "the table gives another row for this case"
    before = [None if x is None else x.copy() for x in arrays]
    y, cache = fast.op(*arrays, **case.settings)
    dy = cases.upstream(y, rng)
    got = [*cases.flat(y), *cases.flat(fast.op_backward(dy, cache))]
    tolerance = exactness or fast.tolerance
    cases.assert_within(got, cases.textbook(name, arrays, case.settings, dy), tolerance, f"{row}")
    assert all(x.dtype == dtype for x in got)
    for x, copy in zip(arrays, before):
        assert x is None or np.array_equal(x, copy), "an argument was written to"
    if fast.inference:
        np.testing.assert_array_equal(fast.inference(*arrays, **case.settings)[0], y)
        assert fast.inference(*arrays, **case.settings)[1] is None or row[1] == "winograd"


@pytest.mark.parametrize("row", [*HOST, *cases.rows("cuda")], ids=ids)
def test_row_has_the_signature_of_the_op(row):
    fast = (HOST | cases.rows("cuda"))[row]

    def parameters(function, ours):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values() if p.name not in ours]

    op = OPS[row[0]]
    assert parameters(fast.op, {"keep"}) == parameters(op.op, {*op.parts, "nearest_code"})
    assert parameters(fast.op_backward, ()) == parameters(op.op_backward, {f"{part}_backward" for part in op.parts})


@pytest.mark.parametrize("name", OPS)
def test_a_textbook_op_stands_in_minild_ops_with_its_backward(name):
    op = OPS[name]
    assert (op.op.__name__, op.op_backward.__name__) == (name, f"{name}_backward")
    assert op.op.__module__ == op.op_backward.__module__ and op.op.__module__.startswith("minild.ops.")
    assert NAMES[op.op] == name


@pytest.mark.parametrize("name", OPS)
def test_the_check_takes_the_arguments_of_the_op(name):
    op = OPS[name]
    own = [p for p in inspect.signature(op.op).parameters if p not in (*op.parts, "nearest_code")]
    inspect.signature(op.require).bind(*own)


def test_a_call_brings_its_own_backward_and_nothing_under_inference(rng):
    x, weight = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    from minild.ops.linear import linear

    y, call = run(linear, x, weight)
    dx, dweight, dbias = call.backward(np.ones_like(y))
    np.testing.assert_allclose(dweight, x.T @ np.ones((3, 2)))
    assert dx.shape == x.shape and dbias is None
    with inference():
        again, call = run(linear, x, weight)
    assert call is None
    np.testing.assert_array_equal(again, y)


def test_a_call_made_in_training_is_differentiated_under_inference_too(rng):
    """The fused norm keeps half of what SiLU was given; a backward within `inference` once crashed for want of it."""
    from minild.ops.norm import group_norm_silu

    x, gamma, beta = rng.standard_normal((2, 3, 4)), rng.standard_normal(4), rng.standard_normal(4)
    y, call = run(group_norm_silu, x, gamma, beta, 2)
    with inference():
        inside = call.backward(np.ones_like(y))
    for a, b in zip(inside, call.backward(np.ones_like(y)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arguments_are_checked_whoever_computes(rng):
    from minild.ops.norm import group_norm

    x = rng.standard_normal((2, 3, 4))
    for words, own in (((), {}), (("textbook",), {}), ((), {"group_norm": (lambda *a: 1 / 0, lambda *a: 1 / 0)})):
        with using(*words, **own), pytest.raises(ValueError, match=r"^gamma: expected shape \(4,\), got \(3,\)"):
            run(group_norm, x, np.ones(3), np.ones(4), 2)


def test_on_another_device_the_rows_for_any_array_serve(rng):
    """Not CuPy's, for which there are kernels: float64 there, or the double, goes by the textbook and by pieces."""
    x = backend.to_device(rng.standard_normal((2, 5, 5, 4)), "double")
    weight = backend.to_device(rng.standard_normal((3, 3, 4, 4)), "double")
    assert OPS["conv2d"].implementation((x, weight), {}).op is conv.conv2d
    assert OPS["group_norm"].implementation((x, weight, weight, 2), {}) is None
