"""The one gradient checker: a hand-written backward against central differences of its own forward, in float64.

For a random upstream gradient dy let L = Σ dy · y. A backward claims dL/dx; the checker measures it, one element after
another, as (L(x + h) - L(x - h)) / 2h. A random dy matters: with dy all ones the true dx of a softmax and of every
normalisation is zero, and a backward that returns zeros would pass.
"""

import numpy as np

from minild.backend import device_of, to_device, to_host


class GradientError(AssertionError):
    """A backward that does not agree with its forward, or that broke the rules of an op."""


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
    rng = np.random.default_rng(seed)
    title = _name(op)
    inputs = {name: _float64(x) for name, x in inputs.items()}
    names = _differentiable(inputs, differentiable)

    def run(host_inputs):
        return op(**{name: _move(x, device) for name, x in host_inputs.items()}, **settings)

    on_device = {name: _move(x, device) for name, x in inputs.items()}
    before = _snapshot(on_device)
    y, cache = op(**on_device, **settings)
    _require_unchanged(before, on_device, f"{title} changed its inputs")
    dy = _random_like(y, rng, device)
    dy_before, cache_before = _snapshot(dy), _snapshot(cache)
    gradients = _as_tuple(op_backward(dy, cache))
    _require_unchanged(dy_before, dy, f"{_name(op_backward)} changed dy")
    _require_unchanged(cache_before, cache, f"{_name(op_backward)} changed the cache")
    _require_count(title, gradients, names)

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
    rng = np.random.default_rng(seed)
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
    on_device = {name: _move(x, device) for name, x in inputs.items()}
    before = _snapshot(on_device)

    y, cache = module.forward(**on_device, **settings)
    _require_unchanged(before, on_device, f"{title}.forward changed its inputs")
    _require_equal(_hosts(y), _hosts(module(**on_device, **settings)), f"{title}: module(...) differs from forward's y")
    dy = _random_like(y, rng, device)
    dy_before, cache_before = _snapshot(dy), _snapshot(cache)
    module.zero_grad()
    gradients = _as_tuple(module.backward(dy, cache))
    _require_unchanged(dy_before, dy, f"{title}.backward changed dy")
    _require_unchanged(cache_before, cache, f"{title}.backward changed the cache")
    while len(gradients) > len(names) and gradients[-1] is None:  # of an optional input left out, or of token ids
        gradients = gradients[:-1]
    _require_count(title, gradients, names)
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
        self.dy = _hosts(dy)
        ys = _hosts(y)
        self.sizes = {size for x in [*ys, *inputs.values()] if x is not None for size in np.shape(x)}
        # Rounding of y, seen through a division by the step: differences this small say nothing, so a gradient that
        # is truly zero (the bias of a key under a softmax) is not held to a relative error.
        size_of_loss = np.sqrt(sum(float(np.sum((a * b) ** 2)) for a, b in zip(ys, self.dy) if b is not None))
        noise = 32 * np.finfo(np.float64).eps * size_of_loss / step
        self.floor = max(1e-8, noise / tolerance)
        self.largest = 0.0

    def compare(self, argument, value, gradient, forward, device):
        where = f"{self.title}, {argument}"
        if gradient is None:
            raise GradientError(f"{where}: backward returned no gradient (None)")
        if not hasattr(gradient, "shape") or gradient.shape != value.shape:
            raise GradientError(f"{where}: gradient of shape {np.shape(gradient)} for a value of shape {value.shape}")
        if gradient.dtype != np.float64:
            raise GradientError(f"{where}: gradient of dtype {gradient.dtype} for an argument in float64")
        if device_of(gradient) != device:
            raise GradientError(f"{where}: gradient on {device_of(gradient)} for an argument on {device}")
        analytic = to_host(gradient)
        if not value.size:
            return
        if value.size <= 2 * self.samples:
            chosen = np.arange(value.size)
        else:
            chosen = self.rng.choice(value.size, self.samples, replace=False)
        numeric = np.array([self._slope(forward, value, _unit(value.shape, i)) for i in chosen])
        self._judge(where, value.shape, chosen, analytic, numeric)
        if len(chosen) < value.size:
            self._judge_direction(where, value, analytic, forward)

    def _slope(self, forward, value, direction):
        plus = _hosts(forward(value + self.step * direction))
        minus = _hosts(forward(value - self.step * direction))
        # Differences before the sum: the large parts of L that do not move cancel exactly.
        change = sum(float(np.sum((p - m) * dy)) for p, m, dy in zip(plus, minus, self.dy) if dy is not None)
        return change / (2 * self.step)

    def _judge(self, where, shape, chosen, analytic, numeric):
        a = analytic.reshape(-1)[chosen]
        scale = max(np.max(np.abs(a)), np.max(np.abs(numeric)), self.floor)
        error = np.abs(a - numeric) / scale
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        if not error[worst] <= self.tolerance:  # so that NaN fails
            index = tuple(int(i) for i in np.unravel_index(chosen[worst], shape))
            hint = explain(a, numeric, shape, self.sizes)
            raise GradientError(
                f"{where}: worst at index {index}: analytic {a[worst]:.10g}, numeric {numeric[worst]:.10g}, "
                f"relative error {error[worst]:.2g} > {self.tolerance:.2g}. Hint: {hint}"
            )
        self.largest = max(self.largest, float(error[worst]))

    def _judge_direction(self, where, value, analytic, forward):
        direction = self.rng.standard_normal(value.shape)
        direction /= np.linalg.norm(direction)
        numeric, a = self._slope(forward, value, direction), float(np.sum(analytic * direction))
        scale = max(abs(a), abs(numeric), float(np.sqrt(np.mean(analytic**2))), self.floor)
        error = abs(a - numeric) / scale
        if not error <= self.tolerance:
            raise GradientError(
                f"{where}: along a random direction over the whole array: analytic {a:.10g}, numeric {numeric:.10g}, "
                f"relative error {error:.2g} > {self.tolerance:.2g}. Hint: the sampled elements agree, so the fault is "
                "in few elements: look at borders and at the last rows, columns or channels"
            )
        self.largest = max(self.largest, error)


def explain(claimed, true, shape, sizes, words=("the analytic gradient", "the numeric gradient", "analytic / numeric")):
    """What the pattern of claimed over true values suggests.

    claimed, true (n,): elements of arrays of this shape, all of them or some; sizes: lengths of axes, one of which a
    constant ratio may be; words: what the two and their ratio are called.
    """
    name, true_name, ratio_name = words
    if not np.all(np.isfinite(claimed)):
        return f"{name} holds NaN or infinity"
    scale = max(np.max(np.abs(claimed)), np.max(np.abs(true)))
    if not np.any(claimed):
        return f"{name} is all zero: it is not computed"
    if np.max(np.abs(true)) < 1e-6 * scale:
        return f"{true_name} is zero: the op does not depend on this argument"
    seen = np.abs(true) > 1e-3 * np.max(np.abs(true))
    ratio = claimed[seen] / true[seen]
    factor = float(np.median(ratio))
    if np.max(np.abs(ratio - factor)) < 1e-3 * abs(factor):
        return _constant_ratio(factor, sizes, ratio_name)
    if len(shape) == 2 and len(claimed) == shape[0] * shape[1] and shape[0] == shape[1]:
        if np.allclose(claimed.reshape(shape).T, true.reshape(shape), atol=1e-5 * scale):
            return f"{name} is right but transposed"
    if np.allclose(np.sort(claimed), np.sort(true), atol=1e-5 * scale):
        return "the right values in the wrong order: a reshape or an axis is wrong"
    missing = (true - claimed).reshape(shape) if len(claimed) == np.prod(shape) else None
    for axis in range(len(shape) if missing is not None else 0):
        if shape[axis] > 1 and np.max(np.ptp(missing, axis=axis)) < 1e-5 * np.max(np.abs(missing)):
            return f"off by the same amount along axis {axis}: a missing term, such as the one through the mean"
    right = int(np.sum(np.abs(claimed - true) < 1e-5 * scale))
    if right:
        return f"right at {right} of {len(claimed)} elements: a missing term, or a border or diagonal treated apart"
    return "no constant ratio: a missing term, or a sum over the wrong axis"


def _constant_ratio(factor, sizes, ratio):
    """In words: the claimed values are `factor` times the true ones."""
    if abs(factor + 1) < 1e-3:
        return f"{ratio} is -1 everywhere: a sign"
    text = f"{ratio} is {factor:.4g} everywhere: "
    sign = "a sign and " if factor < 0 else ""
    factor = abs(factor)
    for size in sorted(sizes | {a * b for a in sizes for b in sizes if a > 1 and b > 1}):
        if size > 1 and abs(factor / size - 1) < 1e-3:
            return f"{text}{sign}a sum taken for a mean over {size} (or a term counted {size} times)"
        if size > 1 and abs(factor * size - 1) < 1e-3:
            return f"{text}{sign}a mean over {size} taken for a sum"
    return f"{text}{sign}a constant factor is left out or taken twice"


def _name(function):
    return getattr(function, "__name__", type(function).__name__)


def _float64(x):
    if x is None or not isinstance(x, np.ndarray):
        return x
    return x.astype(np.float64) if x.dtype.kind == "f" else x.copy()


def _differentiable(inputs, names):
    if names is not None:
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


def _is_array(x):
    return isinstance(x, np.ndarray) or (hasattr(x, "shape") and hasattr(x, "dtype"))


def _host(x):
    return np.asarray(x) if isinstance(x, (np.generic, float, int)) else to_host(x)


def _as_tuple(x):
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _hosts(y):
    return [None if part is None else _host(part) for part in _as_tuple(y)]


def _random_like(y, rng, device):
    """dy: normal in y's shape; None for an output that holds no floats."""
    def one(part):
        host = _host(part)
        return to_device(np.asarray(rng.standard_normal(host.shape)), device) if host.dtype.kind == "f" else None

    return tuple(one(part) for part in y) if isinstance(y, (tuple, list)) else one(y)


def _unit(shape, index):
    direction = np.zeros(shape)
    direction.reshape(-1)[index] = 1
    return direction


def _snapshot(value):
    """A deep host copy of the arrays in a cache, in order; what is no array stands for itself."""
    if isinstance(value, dict):
        return [_snapshot(v) for v in value.values()]
    if isinstance(value, (tuple, list)):
        return [_snapshot(v) for v in value]
    return np.array(_host(value)) if _is_array(value) else value


def _require_unchanged(before, value, message):
    def same(a, b):
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(same(*pair) for pair in zip(a, b))
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


def _require_count(title, gradients, names):
    if len(gradients) != len(names):
        wanted = ", ".join(names)
        raise GradientError(f"{title}: backward returned {len(gradients)} gradients for {len(names)} ({wanted})")
