"""Central differences of a forward, and what keeps them from saying anything of its backward.

A forward that is random, that gives NaN, that computes in float32 or has a kink where it is looked at cannot be held
against a backward: each is named here. GradientError is raised for it, too, but not in the backward's name.
"""

import numpy as np

from minild.backend import to_host

LEAST_STEP = 2.0**-40  # of a number's own size: a smaller step would be lost in its rounding
SINGLE = float(np.finfo(np.float32).eps)


class GradientError(AssertionError):
    """A backward that does not agree with its forward, that broke the rules of an op, or that cannot be judged."""


def is_array(x):
    return isinstance(x, np.ndarray) or (hasattr(x, "shape") and hasattr(x, "dtype"))


def as_tuple(x):
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def host(x):
    return np.asarray(x) if isinstance(x, (np.generic, float, int)) else to_host(x)


def hosts(y):
    """The arrays of an output on the host, None for what is none."""
    return [None if part is None else host(part) for part in as_tuple(y)]


def require_inputs(title, inputs, names):
    """GradientError for an input that is no array but should be; `names` are those that are to be differentiated.

    With None for them, every input is that could be.
    """
    for name, x in inputs.items():
        asked = name in names if names is not None else isinstance(x, (list, tuple, float, complex))
        if asked and x is not None and not is_array(x):
            raise GradientError(f"{title}, {name}: the input is a {type(x).__name__}: give a NumPy array of floats")
        if names is not None and name in names and is_array(x) and x.dtype.kind != "f":
            raise GradientError(f"{title}, {name}: the input holds {x.dtype}, which has no gradient: give floats")


def integers_among(inputs):
    """In words, what among the inputs has no gradient; "" for nothing."""
    names = [name for name, x in inputs.items() if is_array(x) and x.dtype.kind != "f"]
    return f"; {' and '.join(names)} of integers {'has' if len(names) == 1 else 'have'} no gradient" if names else ""


def pair(title, result):
    """(y, cache) of a forward's result, y looked at. GradientError says what came instead."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise GradientError(f"{title}: a forward returns the pair (y, cache), and this one a {type(result).__name__}")
    require_output(title, result[0])
    return result


def require_output(title, y):
    """GradientError unless y holds floats, in float64, and all of them are numbers."""
    parts = as_tuple(y)
    for part in parts:
        if part is not None and not is_array(part) and not isinstance(part, (float, int)):
            raise GradientError(f"{title}: y is a {type(part).__name__}, where an array is expected")
    arrays = [part for part in hosts(y) if part is not None]
    floats = [x for x in arrays if x.dtype.kind in "fc"]
    if not floats:
        kinds = " and ".join(sorted({str(x.dtype) for x in arrays})) or "nothing"
        raise GradientError(f"{title}: y holds {kinds}, which has no gradient: expected floats")
    for x in floats:
        if x.dtype != np.float64:
            raise GradientError(f"{title}: y is {x.dtype} for inputs in float64: compute in the dtype of the inputs")
    require_finite(title, floats, "for these inputs")


def require_finite(title, arrays, when):
    """GradientError where an output is NaN or infinite, with its place."""
    for x in arrays:
        if x is not None and x.dtype.kind == "f" and not np.isfinite(x).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
            where = f" at index {place}" if place else ""
            raise GradientError(f"{title}: the forward gives {x[place]}{where} {when}: nothing can be compared with it")


def require_repeatable(title, first, second):
    """GradientError unless two calls with the same inputs gave the same y, bit for bit."""
    for a, b in zip(hosts(first), hosts(second)):
        if a is not None and (b is None or a.shape != b.shape or not np.array_equal(a, b)):
            raise GradientError(
                f"{title}: the forward is random, or keeps something from call to call: twice the same inputs gave "
                "two outputs. Fix what it draws, say by a generator of a fixed seed in each call"
            )


class Loss:
    """L(x) = Σ dy · y of one argument, all others as they are, and its slopes by differences.

    forward(value) -> y; dy: host arrays, None for an output without a gradient.
    """

    def __init__(self, title, forward, value, dy, step):
        self.title, self.forward, self.value, self.dy, self.step = title, forward, value, dy, step

    def change(self, start, end):
        """L(end) - L(start). The large parts of L that do not move cancel exactly, for the sum comes last."""
        first, last = (hosts(self.forward(x)) for x in (start, end))
        for y in (first, last):
            require_finite(self.title, y, "beside these inputs")
        return sum(float(np.sum((b - a) * dy)) for a, b, dy in zip(first, last, self.dy) if dy is not None)

    def along(self, direction, steps=(1, -1)):
        """(L(x + s₀ h) - L(x + s₁ h), the difference of the two points), h along the direction for steps (s₀, s₁).

        The points are rounded, so what counts is their difference as it is, not 2 h.
        """
        size = np.max(np.abs(self.value * (direction != 0)), initial=0)
        h = max(self.step, LEAST_STEP * size) * direction
        end, start = (np.asarray(self.value + s * h) for s in steps)
        return self.change(start, end), end - start

    def slope(self, index, steps=(1, -1)):
        """dL/dx at one element of the flat array, by a difference: (1, -1) is the central one."""
        change, difference = self.along(self._unit(index), steps)
        return change / float(difference.reshape(-1)[index])

    def kink(self, index):
        """(slope to the left, slope to the right) at an element where they differ however small the step; else None.

        For a smooth forward the gap between them shrinks in proportion to the step.
        """
        gaps = []
        for s in (1, 0.1):
            left, right = self.slope(index, (0, -s)), self.slope(index, (s, 0))
            gaps.append(abs(right - left))
        return (left, right) if gaps[1] > max(0.5 * gaps[0], 1e-9) else None

    def is_float32(self):
        """Whether y was computed in float32.

        The input moves by a hundredth of float32's spacing: in float64 y moves in proportion, in float32 not at all, or
        far too much. Elements of y whose move float64 itself would lose are left aside.
        """
        signs = np.random.default_rng(0).choice([-1.0, 1.0], self.value.shape)
        points = [np.asarray(self.value * (1 + t * signs)) for t in (0, 0.01 * SINGLE, 100 * SINGLE)]
        outputs = [hosts(self.forward(point)) for point in points]
        still, near, far = (
            np.concatenate([y.reshape(-1) for y, dy in zip(several, self.dy) if dy is not None]) for several in outputs
        )
        expected = np.abs(far - still) * 1e-4
        telling = expected > 1e3 * np.finfo(np.float64).eps * np.abs(still)
        if not telling.any():
            return False
        return not 0.95 < np.median(np.abs(near - still)[telling] / expected[telling]) < 1.05

    def _unit(self, index):
        direction = np.zeros(self.value.shape)
        direction.reshape(-1)[index] = 1
        return direction
