"""The one gradient checker: a hand-written backward against central differences of its own forward, in float64.

For a random upstream gradient dy let L = Σ dy · y. A backward claims dL/dx; the checker measures it, one element after
another, as (L(x + h) - L(x - h)) / 2h. A random dy matters: with dy all ones the true dx of a softmax and of every
normalisation is zero, and a backward that returns zeros would pass.

The forward is looked at, too (minild.differences). One that is random, gives NaN, computes in float32 or has a kink at
the inputs, such as ReLU at 0, is named as that; and where rounding hides a gradient, a backward is not let pass.
"""

import numpy as np

from minild.backend import device_of, to_device, to_host
from minild.differences import (
    GradientError,
    Loss,
    as_tuple,
    host,
    hosts,
    integers_among,
    is_array,
    pair,
    require_inputs,
    require_repeatable,
)
from minild.gradient_hints import explain

UNCERTAIN = 5e-3  # of a gradient: where rounding is more than that of it, even a wrong one might pass
LARGEST_NOISE = 1e-4  # of a slope, beyond which a gradient that is said to be zero might be anything
ROUNDING = 1e3 * float(np.finfo(np.float64).eps)  # what of L a gradient that is truly zero may still amount to


def check(op, op_backward, inputs, *, differentiable=None, seed=0, step=1e-5, tolerance=1e-6, samples=200,
          device="cpu", **settings):
    """Check op_backward(dy, cache) against central differences of op(**inputs, **settings) -> (y, cache).

    inputs: dict of name -> host array (or None for an argument left out); float arrays are cast to float64.
    differentiable: the names that op_backward answers for, in its order (default: every float array, and every None).
    An array of more than 2·samples elements is checked at `samples` random ones and along one random direction, which
    sees all of it. Returns the largest relative error, max|analytic - numeric| / max(|analytic|, |numeric|) of an
    argument.
    Raises GradientError naming op, argument, worst index, both values and what their ratio suggests.
    """
    rng = _own_generator(seed)
    title = _name(op)
    inputs = {name: _float64(x) for name, x in inputs.items()}
    names = _differentiable(inputs, differentiable)
    require_inputs(title, inputs, names if differentiable else None)
    if not names:
        raise GradientError(f"{title}: no input has a gradient{integers_among(inputs)}: give floats")

    def run(host_inputs):
        return op(**{name: _move(x, device) for name, x in host_inputs.items()}, **settings)

    on_device = {name: _move(x, device) for name, x in inputs.items()}
    before = _snapshot(on_device)
    y, cache = pair(title, op(**on_device, **settings))
    _require_unchanged(before, on_device, f"{title} changed its inputs")
    require_repeatable(title, y, run(inputs)[0])
    dy = _random_like(y, rng, device)
    dy_before, cache_before = _snapshot(dy), _snapshot(cache)
    gradients = as_tuple(op_backward(dy, cache))
    _require_unchanged(dy_before, dy, f"{_name(op_backward)} changed dy")
    _require_unchanged(cache_before, cache, f"{_name(op_backward)} changed the cache")
    _require_count(title, gradients, names, inputs)

    meter = _Meter(title, y, dy, rng, step, tolerance, samples, inputs)
    for name, gradient in zip(names, gradients):
        if inputs[name] is None:
            continue
        meter.compare(name, inputs[name], gradient, lambda value, name=name: run({**inputs, name: value})[0], device)
    return meter.largest


def check_module(module, inputs, *, differentiable=None, seed=0, step=1e-5, tolerance=1e-6, samples=200,
                 device="cpu", **settings):
    """Check a Module's backward: every input, every parameter, and that a second backward adds to .grad.

    The module is cast to float64 and every parameter is drawn anew, so that no zero or one of an initialisation hides
    a fault; it is left so. The other arguments, the result and the errors are those of `check`.
    """
    rng = _own_generator(seed)
    title = type(module).__name__
    for _, parameter in module.named_parameters():  # before the cast, which would warn of values never drawn
        shape = parameter.data.shape
        fan_in = max(1, int(np.prod(shape[:-1])))  # 1 for a vector
        _set(parameter, rng.standard_normal(shape) / np.sqrt(fan_in))
    cast = module.astype("float64")
    module = module if cast is None else cast
    parameters = dict(module.named_parameters())
    inputs = {name: _float64(x) for name, x in inputs.items()}
    names = _differentiable(inputs, differentiable)
    require_inputs(title, inputs, names if differentiable else None)
    on_device = {name: _move(x, device) for name, x in inputs.items()}
    before = _snapshot(on_device)

    y, cache = pair(f"{title}.forward", module.forward(**on_device, **settings))
    _require_unchanged(before, on_device, f"{title}.forward changed its inputs")
    require_repeatable(title, y, module.forward(**on_device, **settings)[0])
    _require_equal(hosts(y), hosts(module(**on_device, **settings)), f"{title}: module(...) differs from forward's y")
    dy = _random_like(y, rng, device)
    dy_before, cache_before = _snapshot(dy), _snapshot(cache)
    module.zero_grad()
    gradients = as_tuple(module.backward(dy, cache))
    _require_unchanged(dy_before, dy, f"{title}.backward changed dy")
    _require_unchanged(cache_before, cache, f"{title}.backward changed the cache")
    while len(gradients) > len(names) and gradients[-1] is None:  # of an optional input left out, or of token ids
        gradients = gradients[:-1]
    _require_count(title, gradients, names, inputs)
    once = {name: _gradient(title, name, parameter).copy() for name, parameter in parameters.items()}
    _, cache = module.forward(**on_device, **settings)
    module.backward(dy, cache)
    _require_unchanged(dy_before, dy, f"{title}: a second backward changed dy")
    for name, parameter in parameters.items():
        _require_equal([2 * to_host(once[name])], [to_host(parameter.grad)],
                       f"{title}: a second backward must add to {name}.grad")

    meter = _Meter(title, y, dy, rng, step, tolerance, samples, inputs)

    def run(**changed):
        return module(**{name: _move(x, device) for name, x in {**inputs, **changed}.items()}, **settings)

    for name, gradient in zip(names, gradients):
        if inputs[name] is not None:
            meter.compare(name, inputs[name], gradient, lambda value, name=name: run(**{name: value}), device)
    for name, parameter in parameters.items():
        original = to_host(parameter.data).copy()

        def with_parameter(value, parameter=parameter, original=original):
            _set(parameter, value)
            try:
                return run()
            finally:
                _set(parameter, original)

        meter.compare(name, original, once[name], with_parameter, device_of(parameter.data))
    return meter.largest


class _Meter:
    """Compares analytic with numeric gradients of L = Σ dy · y and keeps the largest relative error."""

    def __init__(self, title, y, dy, rng, step, tolerance, samples, inputs):
        self.title, self.rng, self.step, self.tolerance, self.samples = title, rng, step, tolerance, samples
        self.dy = hosts(dy)
        ys = hosts(y)
        self.sizes = {size for x in [*ys, *inputs.values()] if x is not None for size in np.shape(x)}
        # Rounding of y, seen through a division by the step: differences this small say nothing, so a gradient that
        # is truly zero (the bias of a key under a softmax) is not held to a relative error.
        self.size = np.sqrt(sum(float(np.sum((a * b) ** 2)) for a, b in zip(ys, self.dy) if b is not None))
        self.noise = 32 * np.finfo(np.float64).eps * self.size / step
        self.floor = max(1e-8, self.noise / tolerance)
        self.largest = 0.0

    def compare(self, argument, value, gradient, forward, device):
        where = f"{self.title}, {argument}"
        if gradient is None:
            raise GradientError(f"{where}: backward returned no gradient (None)")
        if isinstance(gradient, (np.generic, float)):  # of an argument without dimensions
            gradient = to_device(np.asarray(gradient), device)
        if not hasattr(gradient, "shape") or gradient.shape != value.shape:
            raise GradientError(f"{where}: gradient of shape {np.shape(gradient)} for a value of shape {value.shape}")
        if gradient.dtype != np.float64:
            raise GradientError(f"{where}: gradient of dtype {gradient.dtype} for an argument in float64")
        if device_of(gradient) != device:
            raise GradientError(f"{where}: gradient on {device_of(gradient)} for an argument on {device}")
        analytic = to_host(gradient)
        if not value.size:
            return
        self._require_judgeable(where, value, analytic)
        if value.size <= 2 * self.samples:
            chosen = np.arange(value.size)
        else:
            chosen = self.rng.choice(value.size, self.samples, replace=False)
        loss = Loss(where, forward, value, self.dy, self.step)
        self._judge(where, loss, chosen, analytic)
        if len(chosen) < value.size:
            self._judge_direction(where, loss, analytic)

    def _require_judgeable(self, where, value, analytic):
        """GradientError where the gradient drowns in the rounding of L, but is more than rounding itself."""
        largest = np.max(np.abs(analytic))
        amounts_to = largest * max(1.0, float(np.max(np.abs(value))))
        drowned = amounts_to > ROUNDING * self.size or self.noise > LARGEST_NOISE
        if self.noise > UNCERTAIN * largest and drowned:
            raise GradientError(
                f"{where}: the gradient cannot be judged at this scale: it is about {largest:.2g}, and the outputs, of "
                f"size {self.size:.2g}, are rounded too coarsely to measure that: make the inputs smaller"
            )

    def _judge(self, where, loss, chosen, analytic):
        numeric = np.array([loss.slope(i) for i in chosen])
        a = analytic.reshape(-1)[chosen]
        size = max(np.max(np.abs(a)), np.max(np.abs(numeric)))
        scale = max(size, self.floor)
        error = np.abs(a - numeric) / scale
        wrong = np.flatnonzero(~(error <= self.tolerance))  # so that NaN fails
        for k in wrong:  # a kink nearby, or a steep curve, is behind many a difference, and goes with the step
            error[k] = min(error[k], self._at_smaller_steps(loss, chosen[k], a[k], size) / scale)
        wrong = np.flatnonzero(~(error <= self.tolerance))
        if not len(wrong):
            self.largest = max(self.largest, float(np.max(error)))
            return
        shape = loss.value.shape
        self._blame_forward(where, loss, chosen[wrong], a[wrong], scale)
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        hint = explain(a, numeric, shape, self.sizes)
        raise GradientError(
            f"{where}: worst at index {_place(chosen[worst], shape)}: analytic {a[worst]:.10g}, numeric "
            f"{numeric[worst]:.10g}, relative error {error[worst]:.2g} > {self.tolerance:.2g}. Hint: {hint}"
        )

    def _at_smaller_steps(self, loss, place, analytic, size):
        """How far an element is off at a tenth or a hundredth of the step at least, beyond what is rounding there.

        size: of the gradient. A step whose rounding could hide a thousandth of it tells nothing: inf, as for NaN.
        """
        off = [np.inf]
        for s in (0.1, 0.01):
            if self.noise / s <= 1e-3 * size and np.isfinite(analytic):
                off.append(max(0.0, abs(analytic - loss.slope(place, (s, -s))) - self.noise / s))
        return min(off)

    def _blame_forward(self, where, loss, places, analytic, scale):
        """GradientError that blames the forward, if it is why the backward seems to be wrong at these places."""
        if loss.is_float32():
            raise GradientError(
                f"{where}: the forward computes in float32, whatever its inputs are, too coarsely for differences: "
                "let it keep float64"
            )
        for i, a in zip(places, analytic):
            slopes = loss.kink(i)
            if slopes is None or not min(slopes) - 1e-3 * scale <= a <= max(slopes) + 1e-3 * scale:
                return
        raise GradientError(
            f"{where}: the forward has a kink at index {_place(i, loss.value.shape)}, where its slope jumps from "
            f"{slopes[0]:.4g} to {slopes[1]:.4g}, so that no gradient is right or wrong: choose an input beside it"
        )

    def _judge_direction(self, where, loss, analytic):
        direction = self.rng.standard_normal(loss.value.shape)
        direction /= np.linalg.norm(direction)
        change, difference = loss.along(direction)
        length = np.linalg.norm(difference)
        numeric, a = change / length, float(np.sum(analytic * difference)) / length
        scale = max(abs(a), abs(numeric), float(np.sqrt(np.mean(analytic**2))), self.floor)
        error = abs(a - numeric) / scale
        if not error <= self.tolerance:
            raise GradientError(
                f"{where}: along a random direction over the whole array: analytic {a:.10g}, numeric {numeric:.10g}, "
                f"relative error {error:.2g} > {self.tolerance:.2g}. Hint: the sampled elements agree, so the fault is "
                "in few elements: look at borders, at the last rows, columns or channels, or at a kink of the forward"
            )
        self.largest = max(self.largest, error)


def _place(i, shape):
    return tuple(int(k) for k in np.unravel_index(i, shape))


def _own_generator(seed):
    """One that no caller has: inputs drawn by default_rng(seed) would else be dy, too, and with dy = x the gradient
    xᵀ dy of a linear layer's weight is symmetric, so that its transpose would pass.
    """
    return np.random.default_rng([seed, 0x6D])


def _name(function):
    return getattr(function, "__name__", type(function).__name__)


def _float64(x):
    if x is None or not isinstance(x, np.ndarray):
        return x
    return x.astype(np.float64) if x.dtype.kind == "f" else x.copy()


def _differentiable(inputs, names):
    if names is not None:
        for name in names:
            if name not in inputs:
                raise GradientError(f"differentiable names {name!r}, which is not among the inputs")
        return list(names)
    return [k for k, x in inputs.items() if x is None or (isinstance(x, np.ndarray) and x.dtype.kind == "f")]


def _move(x, device):
    return to_device(x.copy(), device) if isinstance(x, np.ndarray) else x


def _set(parameter, value):
    parameter.data = to_device(np.array(value), device_of(parameter.data))


def _gradient(title, name, parameter):
    if parameter.grad is None:
        raise GradientError(f"{title}, {name}: backward left no gradient (.grad is None)")
    return parameter.grad


def _random_like(y, rng, device):
    """dy: normal in y's shape; None for an output that holds no floats."""
    def one(part):
        if part is None:
            return None
        x = host(part)
        return to_device(np.asarray(rng.standard_normal(x.shape)), device) if x.dtype.kind == "f" else None

    return tuple(one(part) for part in y) if isinstance(y, (tuple, list)) else one(y)


def _snapshot(value):
    """A deep host copy of the arrays in a cache, in order; what is no array stands for itself."""
    if isinstance(value, dict):
        return [_snapshot(v) for v in value.values()]
    if isinstance(value, (tuple, list)):
        return [_snapshot(v) for v in value]
    return np.array(host(value)) if is_array(value) else value


def _require_unchanged(before, value, message):
    def same(a, b):
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(same(*both) for both in zip(a, b))
        if isinstance(a, np.ndarray):
            equal_nan = a.dtype.kind == "f"
            return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=equal_nan)
        return a is b or a == b

    if not same(before, _snapshot(value)):
        raise GradientError(message)


def _require_equal(expected, got, message):
    if len(expected) != len(got):
        raise GradientError(f"{message}: {len(got)} arrays, expected {len(expected)}")
    for a, b in zip(expected, got):
        if a is not None and (a.shape != b.shape or not np.allclose(a, b, rtol=1e-9, atol=1e-12)):
            raise GradientError(f"{message}: expected {a.reshape(-1)[:3]}..., got {b.reshape(-1)[:3]}...")


def _require_count(title, gradients, names, inputs):
    if len(gradients) != len(names):
        wanted = ", ".join(names)
        told = f"backward returned {len(gradients)} gradients for {len(names)} ({wanted})"
        raise GradientError(f"{title}: {told}{integers_among(inputs)}")
