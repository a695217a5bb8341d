"""Every task, judged in this process: the library passes, planted faults do not."""

import re
import types
from pathlib import Path

import numpy as np
import pytest

from minild.course import double, tasks
from minild.course.judge import Judge
from minild.course.task import arrays_in, op
from minild.course.worker import evaluate, make_trials

SEED = 12345
WITHOUT_ARRAYS = ("1.4", "2.4", "6.1")  # among their arguments
double.register()
every_task = pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.number)


@pytest.fixture(scope="module")
def judges():
    return {task.number: Judge(task, SEED) for task in tasks.TASKS}


def fault(judge, function):
    """What the judge finds at fault with a function; None for nothing."""
    arrays = {}
    for i, (arguments, device) in enumerate(make_trials(judge.task, judge.seed)):
        if device != "cpu" and function in judge.task.faults.values():
            continue  # they are NumPy's, and found on the host
        arrays |= {f"{i}:{label}": x for label, x in evaluate(judge.task, function, arguments, device)}
    return judge.fault(arrays)


def changed(task, change):
    """The library's function with every value that it gives changed."""

    def convert(result):
        if isinstance(result, types.GeneratorType):
            return (convert(x) for x in result)
        if isinstance(result, tuple):
            return (convert(result[0]), result[1]) if task.run is op else tuple(map(convert, result))
        if callable(result):
            return lambda *args: convert(result(*args))
        return None if result is None else change(result)

    return lambda **arguments: convert(task.reference(**arguments))


def test_the_table_is_in_order():
    numbers = [tuple(map(int, task.number.split("."))) for task in tasks.TASKS]
    assert numbers == sorted(set(numbers))
    assert {chapter for chapter, _ in numbers} == set(tasks.CHAPTERS)
    chapters_of = {}
    for task in tasks.TASKS:
        assert task.points > 0 and task.function_name.isidentifier()
        chapters_of.setdefault(task.function_name, set()).add(task.chapter)
    assert all(len(chapters) == 1 for chapters in chapters_of.values())  # a file tells its chapters by its functions


@every_task
def test_the_library_is_right(task, judges):
    assert fault(judges[task.number], task.reference) is None


@every_task
def test_planted_faults_are_wrong(task, judges):
    judge = judges[task.number]
    planted = list(task.faults.values())
    if task.number == "2.4":  # what it gives is a verdict
        planted += [lambda *a, **k: 0.0, lambda *a, **k: None]
    else:
        planted += [changed(task, lambda x: x * 0), changed(task, lambda x: -x)]
    if task.number not in WITHOUT_ARRAYS:
        planted.append(mutating(task))
    assert len(planted) >= 3
    with np.errstate(invalid="ignore"):
        for function in planted:
            assert fault(judge, function) is not None


def mutating(task):
    """The library's function, which then adds one to the first array among its arguments."""

    def function(**arguments):
        result = task.reference(**arguments)
        if isinstance(result, types.GeneratorType):
            result = list(result)
        x = next(x for _, x in arrays_in(arguments))
        x += 1
        return (x for x in result) if isinstance(result, list) else result

    return function


@every_task
def test_hints_name_the_fault(task, judges):
    judge = judges[task.number]
    for words, function in task.faults.items():
        if task.number != "2.4":
            assert words in fault(judge, function)
    if task.number not in ("2.4", "4.3"):  # neither has finite values only
        assert "all zero" in fault(judge, changed(task, lambda x: x * 0))
        assert "a sign" in fault(judge, changed(task, lambda x: -x))
    if task.number not in WITHOUT_ARRAYS:
        assert "changes its argument" in fault(judge, mutating(task))


def test_hints_of_the_checker(judges):
    by_name = {task.function_name: judges[task.number] for task in tasks.TASKS}
    checker = by_name["check"]
    [ones] = checker.task.faults.values()
    assert fault(checker, ones).startswith("complains of ") and ": dy is all ones" in fault(checker, ones)
    assert "complains of a right" in fault(checker, lambda **arguments: None)
    assert ": no, where yes is right" in fault(checker, lambda **arguments: 0.0)
    kl = by_name["gaussian_kl"]
    assert "a sum taken for a mean over 120" in fault(kl, lambda mean, logvar: (
        (mean**2 + np.exp(logvar) - 1 - logvar).sum() / 2, None))
    linear = by_name["linear_backward"]

    def flipped_bias(dy, cache):
        dx, dweight, dbias = linear.task.reference(dy, cache)
        return dx, dweight, None if dbias is None else -dbias

    assert fault(linear, flipped_bias).startswith("dbias: worst at index")
    wide = by_name["silu_backward"]
    assert "dtype float64 for arguments in float32" in fault(
        wide, lambda dy, cache: wide.task.reference(dy, cache).astype("float64"))
    assert "(the same axes in another order)" in fault(
        wide, lambda dy, cache: wide.task.reference(dy, cache).T)
    assert "holds NaN" in fault(wide, lambda dy, cache: dy * np.nan)
    group = by_name["split_heads"]
    assert "wrong order" in fault(group, lambda x, heads: group.task.reference(x[:, ::-1], heads))


def test_the_common_faults_are_published():
    text = (Path(__file__).parents[2] / "chapters" / "INSTRUCTORS.md").read_text(encoding="utf-8")
    section = text.split("\n### Common faults\n")[1].split("\n### ")[0]
    planted = [(task.number, words) for task in tasks.TASKS for words in task.faults]
    assert re.findall(r"^- (\S+): (.+)$", section, re.M) == planted
