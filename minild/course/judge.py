"""Right or wrong, and how: a student's values beside the library's. No student's code runs here."""

from typing import NamedTuple

import numpy as np

from minild.course.task import arrays_in
from minild.course.worker import evaluate, make_trials
from minild.gradient_hints import explain

# Of the largest value. In float64 far below what a difference quotient of the forward could reach.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
DTYPES = tuple(TOLERANCE)  # trials are in the one, then in the other: see make_trials
FLOAT64 = "a float64 came in, by an array without a dtype, or by np.sqrt of one number (math.sqrt brings none)"


class Trial(NamedTuple):
    """One call: the right outputs and the arguments as they were, {label: array}, and the call in words."""

    expected: dict
    sizes: set
    words: str
    dtype: str


class Judge:
    """Knows the right values of a task for one seed."""

    def __init__(self, task, seed):
        self.task, self.seed = task, seed
        # Two sets of the same arguments: the call may use up a generator, and arrays are remembered as they were.
        asked, used = make_trials(task, seed), make_trials(task, seed)
        count = len(asked) // len(DTYPES)
        self.trials = []
        for i, ((arguments, device), (spare, _)) in enumerate(zip(asked, used)):
            expected = dict(evaluate(task, task.reference, spare))
            sizes = {size for x in expected.values() for size in (*x.shape, x.size)}
            before = {f"in:{path}": array for path, array in arrays_in(arguments)}
            self.trials.append(Trial(expected | before, sizes, _in_words(arguments, device), DTYPES[i // count]))

    def fault(self, arrays):
        """The first thing that is wrong with what came, {"TRIAL:label": array}, in words; None if all is right."""
        with np.errstate(all="ignore"):  # what came may be any numbers
            for i, trial in enumerate(self.trials):
                came = {label[len(f"{i}:") :]: array for label, array in arrays.items() if label.startswith(f"{i}:")}
                words = self._changed(trial, came) or self._wrong(i, trial, came)
                if words:
                    return words + trial.words
        return None

    def _changed(self, trial, came):
        for label, before in trial.expected.items():
            if label.startswith("in:"):
                after = came.get(label)
                # Not to the last bit: a cache that another process made with BLAS may differ by its rounding.
                if after is None or not close(after, before, TOLERANCE[trial.dtype] / 100):
                    return f"changes its argument {label[3:]}: work on a copy"
        return None

    def _wrong(self, i, trial, came):
        graded = self.task.graded
        labels = {label: None for label in [*trial.expected, *came] if label.startswith("out:")}
        for label in labels:
            name = label[4:]
            if graded and name not in graded:
                continue
            right, got = trial.expected.get(label), came.get(label)
            if right is None:
                return f"{name}: expected None"
            if got is None:
                return f"{name}: there is none, expected an array of shape {right.shape}"
            if got.shape != right.shape:
                return f"{name}: shape {got.shape}, expected {right.shape}{_order(got.shape, right.shape)}"
            if right.dtype.kind == "b":
                if bool(got) != bool(right):
                    common = self._common_fault(i, trial, came)
                    words = f"{name}: {'yes' if got else 'no'}, where {'yes' if right else 'no'} is right"
                    return f"{words}: {common}" if common else words
                continue
            if got.dtype.kind == "c":
                return f"{name}: complex numbers, expected {right.dtype}"
            if not close(got, right, TOLERANCE[trial.dtype]):
                return f"{name}: {self._common_fault(i, trial, came) or self._pattern(name, got, right, trial)}"
            if right.ndim and got.dtype != right.dtype:
                words = f"{name}: dtype {got.dtype} for arguments in {trial.dtype}, expected {right.dtype}"
                return f"{words}: {FLOAT64}" if got.dtype == np.float64 else words
        return None

    def _common_fault(self, i, trial, came):
        """The fault of the task's list that gives the very same values."""
        for words, function in self.task.faults.items():
            arguments, _ = make_trials(self.task, self.seed)[i]
            try:
                outputs = dict(evaluate(self.task, function, arguments))
            except (TypeError, ValueError):  # it is no fault of this call
                continue
            names = [f"out:{name}" for name in self.task.graded] or [x for x in outputs if x.startswith("out:")]
            if all(x in came and close(came[x], outputs[x], TOLERANCE[trial.dtype]) for x in names):
                return words
        return None

    def _pattern(self, name, got, right, trial):
        if not np.all(np.isfinite(got)) and np.all(np.isfinite(right)):
            return "holds NaN or infinity"
        error = np.nan_to_num(np.abs(got - right), nan=np.inf)
        worst = np.unravel_index(int(np.argmax(error)), right.shape)
        place = f"worst at index {tuple(map(int, worst))}: " if right.ndim else ""
        text = f"{place}yours {got[worst]:.6g}, right {right[worst]:.6g}"
        if not np.all(np.isfinite(right)):
            return text
        a, b = (x.astype(np.float64).reshape(-1) for x in (got, right))
        words = (f"your {name}", f"the right {name}", "yours / right")
        return f"{text}. Hint: {explain(a, b, right.shape, trial.sizes, words)}"


def close(got, right, tolerance):
    """Whether they are equal but for rounding, infinities where they belong."""
    if got.shape != right.shape:
        return False
    finite = np.isfinite(right)
    if not np.array_equal(got[~finite], right[~finite], equal_nan=True):
        return False
    got, right = got[finite].astype(np.float64), right[finite].astype(np.float64)
    return not right.size or bool(np.all(np.abs(got - right) <= tolerance * np.max(np.abs(right))))


def _order(got, right):
    same = len(got) > 1 and sorted(got) == sorted(right)
    return " (the same axes in another order)" if same else ""


def _in_words(arguments, device):
    """The settings of a call: " (with heads=2, causal=True)"."""
    plain = {k: v for k, v in arguments.items() if isinstance(v, (bool, int, float, str)) and k != "dy"}
    plain |= {k: v for k, v in arguments.items() if k in ("padding", "kernel")}
    words = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in plain.items()]
    words += ["arrays of another device"] if device != "cpu" else []
    return f" (with {', '.join(words)})" if words else ""
