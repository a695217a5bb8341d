"""AdamW and the exponential moving average of the weights, each one pass over one flat array of all parameters."""

import math
import mmap

import numpy as np

from minild.backend import device_of, get_array_module, to_device, to_host
from minild.engine import cuda
from minild.engine.cuda import optimizer as cuda_optimizer

CHUNK = 1 << 16  # elements a pass works on at a time: with its four arrays, 1 MB, so that they stay in the cache


def flatten_parameters(module):
    """Gather every parameter of the module in one flat array, of which each .data becomes a view -> that array."""
    parameters = module.parameters()
    flat = _zeros(parameters)
    get_array_module(flat).concatenate([p.data.reshape(-1) for p in parameters], out=flat)
    for parameter, view in zip(parameters, _views(flat, parameters)):
        parameter.data = view
    return flat


def flatten_gradients(module):
    """One flat array of zeros, of which each parameter's .grad becomes a view, so that backward adds into it."""
    parameters = module.parameters()
    flat = _zeros(parameters)
    for parameter, view in zip(parameters, _views(flat, parameters)):
        parameter.grad = view
    return flat


def _zeros(parameters):
    """A flat array for as many numbers; on the host, in memory that is shared with processes forked later."""
    size, like = sum(p.data.size for p in parameters), parameters[0].data
    if isinstance(like, np.ndarray):
        return np.frombuffer(mmap.mmap(-1, size * like.itemsize), like.dtype)
    return get_array_module(like).zeros(size, like.dtype)


def _views(flat, parameters):
    start = 0
    for parameter in parameters:
        yield flat[start : start + parameter.data.size].reshape(parameter.data.shape)
        start += parameter.data.size


def chunks(x):
    """Slices of a flat array: all of it on a GPU, cache-sized pieces on the host."""
    step = CHUNK if isinstance(x, np.ndarray) else x.size
    return [slice(i, min(i + step, x.size)) for i in range(0, x.size, step)]


class AdamW:
    """m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  θ ← θ - η (m̂ / (√v̂ + ε) + λ θ), hats without the bias to zero.

    (Loshchilov & Hutter 2017, arXiv 1711.05101, algorithm 2.) `decays` is 1 where the weight decay λ acts and 0 where
    it does not: on vectors (biases and the normalisations' scales).
    """

    def __init__(self, module, weights, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01):
        xp = get_array_module(weights)
        self.weights = weights
        self.m, self.v = xp.zeros_like(weights), xp.zeros_like(weights)
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        decays = np.concatenate([np.full(p.data.size, p.data.ndim > 1, weights.dtype) for p in module.parameters()])
        self.decays = to_device(decays, device_of(weights))
        self.steps = 0

    def step(self, gradient, learning_rate, workers=map):
        """Take one step along the flat gradient, which is left as it is. `workers` maps over pieces of the arrays."""
        self.steps += 1
        xp = get_array_module(gradient)
        rate = learning_rate * math.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        eps = self.eps * math.sqrt(1 - self.beta2**self.steps)
        if cuda.has_kernels(self.weights):
            cuda_optimizer.adamw(gradient, self.m, self.v, self.weights, self.decays, beta1=self.beta1,
                                    beta2=self.beta2, rate=rate, eps=eps, decay=learning_rate * self.weight_decay)
            return

        def update(piece):
            g, m, v, weights = gradient[piece], self.m[piece], self.v[piece], self.weights[piece]
            m += (1 - self.beta1) * (g - m)
            v *= self.beta2
            v += (1 - self.beta2) * (g * g)
            change = xp.sqrt(v)
            change += eps
            xp.divide(m, change, out=change)
            change *= rate
            weights *= 1 - (learning_rate * self.weight_decay) * self.decays[piece]
            weights -= change

        list(workers(update, chunks(gradient)))

    def state_dict(self):
        """What a resumed training needs, as host arrays."""
        return {"m": to_host(self.m), "v": to_host(self.v), "steps": np.array(self.steps)}

    def load_state_dict(self, state):
        device = device_of(self.weights)
        self.m[:], self.v[:] = to_device(state["m"], device), to_device(state["v"], device)
        self.steps = int(state["steps"])


class ExponentialMovingAverage:
    """w̄ ← w̄ + (1 - d) (w - w̄) with d = min(decay, (1 + n) / (10 + n)) at step n.

    The warm-up makes the average span the last tenth of a training, however long it is.
    """

    def __init__(self, weights, decay=0.9999):
        self.average = weights.copy()
        self.decay = decay
        self.steps = 0

    def update(self, weights, workers=map):
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        if cuda.has_kernels(self.average):
            cuda_optimizer.move_average(self.average, weights, rate)
            return

        def update(piece):
            average = self.average[piece]
            average += rate * (weights[piece] - average)

        list(workers(update, chunks(weights)))

    def state_dict(self):
        return {"average": to_host(self.average), "steps": np.array(self.steps)}

    def load_state_dict(self, state):
        self.average[:] = to_device(state["average"], device_of(self.average))
        self.steps = int(state["steps"])


def clip_by_global_norm(gradient, largest):
    """Scale the flat gradient in place so that its 2-norm is at most `largest` -> the norm before, on the device."""
    xp = get_array_module(gradient)
    norm = xp.sqrt(gradient @ gradient)
    gradient *= xp.minimum(1.0, largest / (norm + 1e-12)).astype(gradient.dtype)
    return norm


def learning_rate_at(progress, peak, warm_up=0.03, initial=0.01, final=0.0):
    """Linear from `initial`·peak to `peak` over the first `warm_up` share of a training, then half a cosine down to
    `final`·peak. At an `initial` of 0 the first step of all would move nothing.
    """
    if progress < warm_up:
        return peak * (initial + (1 - initial) * progress / warm_up)
    fallen = 0.5 * (1 - math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))
    return peak * (1 - (1 - final) * fallen)
