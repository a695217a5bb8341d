"""What is wrong with a gradient, as far as the values themselves tell."""

import numpy as np


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
