"""A quick trial of a reader's own op before the work: the same shapes, values and gradients as the textbook's."""

import copy

import numpy as np

from minild.engine.table import OPS
from minild.errors import UserError

TOLERANCE = 1e-3  # of the largest value, in float32: far above rounding, far below a fault

# The arrays of each op by their shapes, and what it takes besides. Axes differ in length, so that none hides another.
EXAMPLES = {
    "linear": ([(2, 5, 4), (4, 3), (3,)], {}),
    "conv2d": ([(2, 6, 5, 4), (3, 3, 4, 7), (7,), 1, 1], {}),
    "group_norm": ([(2, 3, 5, 6), (6,), (6,), 3, 1e-5], {}),
    "group_norm_silu": ([(2, 3, 5, 6), (6,), (6,), 3, 1e-5], {}),
    "layer_norm": ([(2, 5, 6), (6,), (6,), 1e-5], {}),
    "batch_norm": ([(2, 3, 5, 6), (6,), (6,)], {}),
    "unit_norm": ([(2, 5, 6)], {}),
    "relu": ([(2, 5, 6)], {}),
    "leaky_relu": ([(2, 5, 6)], {}),
    "silu": ([(2, 5, 6)], {}),
    "quick_gelu": ([(2, 5, 6)], {}),
    "gelu": ([(2, 5, 6)], {}),
    "geglu": ([(2, 5, 6)], {}),
    "softmax": ([(2, 3, 5, 4)], {}),
    "attention": ([(2, 5, 6), (2, 3, 6), (2, 3, 6), 2], {}),
    "max_pool2d": ([(2, 4, 7, 3)], {}),
    "upsample_nearest": ([(2, 3, 5, 4)], {}),
    "token_embedding": ([np.array([[0, 3, 1], [2, 2, 0]]), (5, 4)], {}),
    "timestep_embedding": ([(3,), 6, True, 0], {}),
    "quantize": ([(2, 3, 5, 4), (7, 4)], {}),
    "mse": ([(2, 3, 5), (2, 3, 5)], {}),
    "l1": ([(2, 3, 5), (2, 3, 5)], {}),
    "hinge": ([(2, 3, 5), 1], {}),
    "logistic": ([(2, 3, 5), -1], {}),
    "gaussian_kl": ([(2, 3, 5), (2, 3, 5)], {}),
    "contrastive": ([(4, 6), (4, 6), ()], {}),
    "gaussian_cross_entropy": ([(2, 3, 5), (2, 3, 5)], {}),
}
MORE = {  # what models ask for besides
    "linear": ([(5, 4), (4, 3), None], {}),
    "conv2d": ([(2, 6, 5, 4), (3, 3, 4, 7), (7,), 2, ((0, 1), (0, 1))], {}),
    "batch_norm": ([(2, 3, 5, 6), (6,), (6,), np.zeros(6, np.float32), np.full(6, 2, np.float32)], {}),
    "attention": ([(2, 5, 6), (2, 5, 6), (2, 5, 6), 3], {"causal": True}),
}


def require_same(name, op, op_backward=None):
    """UserError, in one line, unless the pair gives what minild.ops' pair of that name gives, to TOLERANCE.

    Without a backward, the forward alone is tried. What the pair itself raises passes through.
    """
    for arguments, settings in [EXAMPLES[name], *([MORE[name]] if name in MORE else [])]:
        rng = np.random.default_rng(0)
        arguments = [_array(rng, a) if isinstance(a, tuple) and _is_shape(a) else a for a in arguments]
        theirs, cache = OPS[name].op(*arguments, **settings)
        given = copy.deepcopy(arguments)
        ours, own_cache = _pair(name, op(*given, **settings))
        _require_unchanged(f"{name} writes to its arguments: work on a copy", given, arguments)
        _compare(name, "y", _parts(ours), _parts(theirs))
        if op_backward is None:
            continue
        dy = tuple(_like(rng, part) for part in theirs) if isinstance(theirs, tuple) else _like(rng, theirs)
        given = copy.deepcopy(dy)
        gradients = _parts(op_backward(given, own_cache))
        _require_unchanged(f"{name}_backward writes to dy: work on a copy", _parts(given), _parts(dy))
        _compare(f"{name}_backward", "gradient", gradients, _parts(OPS[name].op_backward(dy, cache)))
        first = copy.deepcopy(gradients)
        op_backward(-2 * dy if isinstance(dy, np.ndarray) else tuple(-2 * part for part in dy), own_cache)
        _require_unchanged(f"{name}_backward returns the same array at every call: make a new one", gradients, first)


def _is_shape(value):
    return all(isinstance(size, int) and not isinstance(size, bool) for size in value)


def _array(rng, shape):
    return rng.standard_normal(shape, np.float32)


def _like(rng, y):
    return rng.standard_normal(np.shape(y), np.float32)


def _parts(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def _pair(name, result):
    if not isinstance(result, tuple) or len(result) != 2:
        raise UserError(f"{name} must return y, cache: it returns {type(result).__name__}")
    return result


def _require_unchanged(message, after, before):
    for a, b in zip(after, before):
        if isinstance(b, np.ndarray) and not np.array_equal(a, b):
            raise UserError(message)


def _compare(title, what, ours, theirs):
    if len(ours) != len(theirs):
        raise UserError(f"{title} must return {len(theirs)} {what}s: it returns {len(ours)}")
    for i, (a, b) in enumerate(zip(ours, theirs), 1):
        which = f"{what} {i}" if len(theirs) > 1 else what
        if b is None:
            continue
        if not hasattr(a, "shape"):
            raise UserError(f"{title}: {which} must be an array, got {type(a).__name__}")
        if a.shape != b.shape:
            raise UserError(f"{title}: {which} has shape {a.shape}, expected {b.shape}")
        if a.dtype != b.dtype:
            raise UserError(f"{title}: {which} has dtype {a.dtype}, expected {b.dtype} like its arguments")
        error = float(np.max(np.abs(a - b), initial=0.0))
        if not error <= TOLERANCE * max(float(np.max(np.abs(b), initial=0.0)), 1e-6):
            raise UserError(f"{title}: {which} is wrong: off by {error:.2g} where values reach {np.max(np.abs(b)):.2g}")
