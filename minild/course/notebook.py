"""The grader's checks in the process at hand: a notebook asks about a function that it has just defined."""

import contextlib

from minild.course import confine, double, grader, report
from minild.course.find import task_of
from minild.course.judge import Judge
from minild.course.task import Misuse, require_signature
from minild.course.worker import allowed_to, evaluate_all, explain, make_trials, others_of, planted
from minild.errors import UserError


def check(number, function):
    """Print what `minild grade` says of an exercise: your function is right, not started, or wrong, and how.

    number: of the exercise, such as "2.1". function: yours, under any name. It is called on arguments that are drawn
    anew every time. As there, it may call NumPy, your own functions, and the parts of minild that the exercise names;
    the rest of minild is withheld meanwhile. But it runs in your own process, with no limit of time or memory.
    Raises UserError for a number that is no exercise's, for what is no function, and for one of another signature.
    """
    task = task_of(number)
    try:
        require_signature(function, task.function_name, task.signature)
    except Misuse as error:
        raise UserError(f"{task.number}: {error}") from None
    print(*report.rows(checked(task, function)), sep="\n")


def checked(task, function):
    """The grader.Result of a function."""
    if len(task.devices) > 1:
        double.register()
    seed = grader.fresh_seed()
    judge, trials = Judge(task, seed), make_trials(task, seed)
    code = getattr(function, "__code__", None)
    try:
        with confine.withheld(task.reference, allowed_to(task), planted()), _libraries_own(task, function):
            arrays = evaluate_all(task, function, trials)
    except (Exception, SystemExit) as error:
        name, file = (code.co_name, code.co_filename) if code else (task.function_name, None)
        status, hint = explain(error, name, file)
        return grader.Result(task, status, grader.printable(hint))
    fault = judge.fault(dict(arrays))
    return grader.Result(task, "wrong" if fault else "right", grader.printable(fault or ""))


@contextlib.contextmanager
def _libraries_own(task, function):
    """As in the grader: where the function calls one that is itself a task, it gets the library's."""
    names = getattr(function, "__globals__", {})
    kept = {name: names[name] for name in others_of(task) if name in names}
    names.update({name: other for name, other in others_of(task).items() if name in kept})
    try:
        yield
    finally:
        names.update(kept)
