"""y, weighted with a random dy and added up, is one number; its change when an input moves is that input's gradient.

With weights of 1 a wrong backward could pass: softmax, for one, has a sum of 1, whatever its input is.
"""

import numpy as np

from minild.gradcheck import GradientError


def check(op, op_backward, inputs):
    inputs = {name: x.astype(np.float64) for name, x in inputs.items()}  # copies
    y, cache = op(**inputs)
    dy = np.random.default_rng(2718).standard_normal(y.shape)
    given = dy.copy()
    gradients = op_backward(given, cache)
    if not np.array_equal(given, dy):
        raise GradientError("op_backward changes dy")
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    largest, step = 0.0, 1e-5
    for (name, x), analytic in zip(inputs.items(), gradients):
        numeric = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            middle = x[index]
            x[index] = middle + step
            above = (op(**inputs)[0] * dy).sum()
            x[index] = middle - step
            below = (op(**inputs)[0] * dy).sum()
            x[index] = middle
            numeric[index] = (above - below) / (2 * step)
        error = np.abs(analytic - numeric).max() / max(np.abs(analytic).max(), np.abs(numeric).max())
        if not error <= 1e-6:  # so that NaN does not pass
            raise GradientError(f"{name}: relative error {error:.2g}")
        largest = max(largest, float(error))
    return largest
