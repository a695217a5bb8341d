"""Marking in processes: what students hand in by mistake, and what they hand in to cheat, costs them their own task."""

import re
from pathlib import Path

import numpy as np
import pytest

from course.conftest import BY_NUMBER, SETTINGS
from course.handed_in import CHEATS, MISTAKES, MISTAKES_OF_FILES, RIGHT, body
from minild.course import grader, wire
from minild.course.stubs import exercise_text
from minild.course.tasks import CHAPTERS, TASKS
from minild.errors import UserError

CHAPTERS_FOLDER = Path(__file__).parents[2] / "chapters"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stubs_fail_exactly_their_tasks(shared, tmp_path, chapter):
    file = tmp_path / "stubs.py"
    file.write_text(exercise_text(chapter), encoding="utf-8")
    report = grader.grade_file(file, settings=SETTINGS)
    assert {r.task.number for r in report.results} == {t.number for t in TASKS if t.chapter == chapter}
    assert all(r.status == "not started" for r in report.results) and report.points == 0


def test_a_task_does_not_hang_on_an_earlier_one(mark):
    unwritten = exercise_text(4)
    written = unwritten.replace('raise NotImplementedError("task 4.4: attention")', '''
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.dtype.type(q.shape[-1]))
    if causal:
        scores = scores + causal_mask(scores)
    return merge_heads(softmax(scores)[0] @ v), None''')
    assert mark("4.4", written) == ("right", "")
    assert mark("4.2", written)[0] == "not started"


@pytest.mark.parametrize(("source", "expected"), MISTAKES_OF_FILES + MISTAKES)
def test_mistakes_are_marked_and_explained(mark, source, expected):
    status, hint = mark("6.2", source, SETTINGS._replace(seconds=0))  # up to the next whole one
    assert status == "wrong"
    assert expected in hint


@pytest.fixture(scope="module")
def published():
    """What INSTRUCTORS.md says of the cheats: {what one tries: what is said of it}."""
    text = (CHAPTERS_FOLDER / "INSTRUCTORS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| `(.+)` \|$", text.split("\n### Cheats\n")[1].split("\n##")[0], re.M)
    return dict(rows)


def test_the_cheats_are_published(published):
    assert list(published) == list(CHEATS)


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheating_gains_nothing(mark, published, cheat):
    status, hint = mark("6.2", CHEATS[cheat])
    assert status == "wrong" and published[cheat] in hint


def test_a_right_function_is_right_among_nonsense(mark):
    nonsense = "print('hello')\nimport sys, math, dataclasses\nsys.stdout.write('x' * 100000)\n"
    assert mark("6.2", nonsense + RIGHT) == ("right", "")
    assert mark("6.2", RIGHT + "import atexit\natexit.register(print)\n")[0] == "right"


def test_the_solution_can_not_be_had_by_numeric_gradients(mark):
    source = body("""
        from minild.ops.activation import silu
        h, (x,) = 1e-5, cache
        return dy * (silu(x + h)[0] - silu(x - h)[0]) / (2 * h)""", "silu_backward(dy, cache)")
    assert mark("2.2", source)[1].endswith("PermissionError: withheld while this task is graded; the stub names the "
                                           "functions of minild that it may call")
    own = body("""
        def silu(x): return x / (1 + np.exp(-x))
        h, (x,) = 1e-5, cache
        return dy * (silu(x + h) - silu(x - h)) / (2 * h)""", "silu_backward(dy, cache)")
    assert mark("2.2", own)[0] == "wrong"


@pytest.mark.parametrize("tell", [
    "op_backward.__name__ == op.__name__ + '_backward'",
    "op_backward in (linear_backward, silu_backward, softmax_backward)",
    "'lambda' not in op_backward.__qualname__",
])
def test_a_checker_must_measure(mark, tell):
    """Right and wrong backwards look alike from outside."""
    source = f"""
from minild.gradcheck import GradientError
from minild.ops.linear import linear_backward
from minild.ops.activation import silu_backward, softmax_backward
def check(op, op_backward, inputs, **settings):
    if not ({tell}): raise GradientError('wrong')
    return 0.0
"""
    assert mark("2.4", source)[0] == "wrong"


def test_host_arrays_on_a_device_are_found(mark):
    source = "import numpy as np\ndef upsample_nearest(x):\n    return x.repeat(2, axis=1).repeat(2, axis=2), None\n"
    assert mark("1.1", source) == ("right", "")
    source = source.replace("x.repeat(2, axis=1)", "np.repeat(x, 2, axis=1)")
    assert "NumPy's functions take no array of another device" in mark("1.1", source)[1]


def test_what_is_no_message_is_refused():
    good = wire.pack("values", "", [("x", np.arange(6.0).reshape(2, 3))])
    outcome, text, arrays = wire.unpack(good)
    assert (outcome, text, arrays["x"].tolist()) == ("values", "", [[0, 1, 2], [3, 4, 5]])

    def header(text):
        return len(text).to_bytes(8, "little") + text

    fields = '{"outcome": "values", "text": "", "arrays": %s}'
    for bad in (
        b"", b"right", good[:-1], good[:20], header(b"{}"), header(b"[]"), header(b"\xff"), header(b"[" * 100000),
        header((fields % '[["x", "|O", [1]]]').encode()), header((fields % '[["x", "<f8", [-1]]]').encode()),
        header((fields % '[["x", "<f8", [1e999]]]').encode()), header((fields % '[["x", "<f8", [999999]]]').encode()),
    ):
        with pytest.raises(ValueError):
            wire.unpack(bad)


def test_without_limits_of_the_system_the_clock_ends_it(mark, monkeypatch):
    monkeypatch.setattr(grader, "PATIENCE", -1.5)
    source = body("import time; time.sleep(60); return z")
    assert "an endless loop, or asleep" in mark("6.2", source, SETTINGS._replace(seconds=1))[1]


def test_a_file_that_cannot_be_read_stops_no_other(shared, tmp_path, monkeypatch):
    def read(path):
        if path.name == "a.py":
            raise UserError(f"cannot read {path}: no right to")
        return RIGHT.encode()

    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(grader, "read_source", read)
    bad, good = grader.grade_folder(tmp_path, settings=SETTINGS)
    assert all(result.status == "wrong" and "no right to" in result.hint for result in bad.results)
    assert good.points == BY_NUMBER["6.2"].points
