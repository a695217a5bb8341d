"""check(number, function) in a notebook: the grader's words, at once, and nothing is left changed by it."""

import re
from pathlib import Path

import numpy as np
import pytest

import minild.course
from course.conftest import BY_NUMBER, SETTINGS
from course.handed_in import ARGUMENTS, MISTAKES, REFERENCE, RIGHT, body
from minild.course import check, grader, notebook
from minild.diffusion.schedule import add_noise
from minild.errors import UserError
from minild.ops.activation import silu
from minild.ops.linear import linear, linear_backward

CELLS = {
    "right": RIGHT,
    "not started": body('raise NotImplementedError("task 6.2")'),
    "wrong, with a hint": body("return noise_level * z + signal_level * noise"),
    "calls the solution": f"from {REFERENCE} import add_noise as f\n" + body(f"return f({ARGUMENTS})"),
    "calls what is withheld": "from minild.ops.loss import mse\n" + body("return mse(z, noise)[0]"),
    "the table's own": "from minild.course.tasks import TASKS\n" + body(
        f"return next(t for t in TASKS if t.number == '6.2').reference({ARGUMENTS})"),
    "a planted fault": "from minild.course.tasks import TASKS\n" + body("""
        fault = list(next(t for t in TASKS if t.number == '6.2').faults.values())[0]
        return fault(z, noise, noise_level, signal_level)"""),
    "calls what is not written": "def levels(): raise NotImplementedError\n" + body("return z * levels()"),
    **{expected: source for source, expected in MISTAKES if "got add_noise()" not in expected},
}


def run(source, name="add_noise"):
    """The function of that name of a cell, and the cell's other names."""
    names = {}
    exec(compile(source, "a cell", "exec"), names)
    return names[name], names


@pytest.mark.parametrize("source", CELLS.values(), ids=CELLS)
def test_it_says_what_the_grader_says(mark, monkeypatch, source):
    monkeypatch.setattr(grader, "fresh_seed", lambda: SETTINGS.seed)
    function, _ = run(source)
    _, status, hint = notebook.checked(BY_NUMBER["6.2"], function)
    assert (status, hint) == mark("6.2", source)


def test_it_prints_the_graders_rows(capsys):
    function, _ = run(RIGHT)
    check("6.2", function)
    check(6.2, lambda z, noise, signal_level, noise_level: z)
    row, *wrong = capsys.readouterr().out.splitlines()
    assert row == "6.2     1/1  right        q(z_t | z_0) (add_noise)"
    assert wrong[0] == "6.2     0/1  wrong        q(z_t | z_0) (add_noise)"
    assert wrong[1].startswith("             z_t: worst at index (")


def test_a_function_may_have_any_name_and_need_no_earlier_one(capsys):
    source = """
import re
from pathlib import Path

import numpy as np
def softmax(x): raise NotImplementedError
def split_heads(x, heads): return x
def my_attention(q, k, v, heads, causal=False):
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    weights = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    weights = np.exp(weights + (np.triu(np.full(weights.shape[-2:], -np.inf, q.dtype), 1) if causal else 0))
    y = weights / weights.sum(axis=-1, keepdims=True) @ v
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1), None
"""
    function, names = run(source, "my_attention")
    theirs = names["split_heads"]
    check("4.4", function)
    assert "right" in capsys.readouterr().out
    assert names["split_heads"] is theirs and theirs(5, 2) == 5
    unwritten, _ = run("def mine(dy, cache): raise NotImplementedError", "mine")
    check("2.1", unwritten)
    assert "not started" in capsys.readouterr().out


def test_both_devices_are_tried(capsys):
    check("1.1", lambda x: (np.repeat(np.repeat(x, 2, axis=1), 2, axis=2), None))
    assert "NumPy's functions take no array of another device" in " ".join(capsys.readouterr().out.split())


def test_what_was_withheld_is_there_again(capsys):
    """After an answer, after an error, and after Ctrl-C."""
    called = []

    def mine(z, noise, signal_level, noise_level):
        called.append(1)
        with pytest.raises(PermissionError):
            linear(z, z)
        raise error

    for error in (ValueError("x"), KeyboardInterrupt(), SystemExit()):
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                check("6.2", mine)
        else:
            check("6.2", mine)
        x = np.ones((2, 3))
        assert linear(x, np.ones((3, 1)))[0].tolist() == [[3], [3]]  # its bias has a default
        assert add_noise(x, x, 1, 2).tolist() == (3 * x).tolist()
        assert BY_NUMBER["6.2"].faults["the levels are roots already"](x, x, 4, 9).tolist() == (5 * x).tolist()
    assert len(called) == 3


@pytest.mark.parametrize(
    "number, function, line",
    [
        ("2.1", [1], "2.1: expected a function linear_backward(dy, cache), got a list of 1"),
        ("2.1", None, "2.1: expected a function linear_backward(dy, cache), got None"),
        ("2.1", np.ones(2), "2.1: expected a function linear_backward(dy, cache), got an array of shape (2,)"),
        ("2.1", lambda dy: dy, "2.1: expected linear_backward(dy, cache), got <lambda>(dy)"),
        ("2.1", int, "2.1: expected linear_backward(dy, cache), got int"),
        ("2.4", linear_backward, "2.4: expected check(op, op_backward, inputs), got linear_backward(dy, cache)"),
        ("2.9", silu, "no exercise 2.9: the nearest is 2.4, a gradient checker"),
        ("2", silu, "no exercise 2: the nearest is 2.1, a linear layer, backwards"),
        ("17.3", silu, "no exercise 17.3: the nearest is 6.3, the ε loss"),
        ("two", silu, "'two' is no number of an exercise: they go from 1.1 to 6.6"),
        (silu, "2.2", 'expected the number of an exercise, such as "2.1", got a function'),
    ],
)
def test_a_wrong_call_is_told_in_one_line(number, function, line):
    with pytest.raises(UserError) as caught:
        check(number, function)
    assert str(caught.value) == line
    assert caught.value._render_traceback_() == [line]  # what a notebook shows


def test_the_package_knows_it_by_name():
    assert minild.course.check is notebook.check
    with pytest.raises(AttributeError, match="has no attribute 'chek'"):
        _ = minild.course.chek


def test_the_readme_shows_what_it_prints(capsys):
    """All but the numbers, which are drawn anew."""
    learn = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("\n## Learn\n")[1]
    code, shown = re.search(r"^```python\n(.*?)((?:^# [^\n]*\n)+)```", learn, re.M | re.S).groups()
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    shown = [line.removeprefix("# ") for line in shown.splitlines()]
    assert printed[0] == shown[0]
    pattern = re.sub(r"-?\d+(\\\.\d+)?", r"[-\\d.e]+", re.escape(" ".join(" ".join(shown[1:]).split())))
    assert re.fullmatch(pattern, " ".join(" ".join(printed[1:]).split()))
