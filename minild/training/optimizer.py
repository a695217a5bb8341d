"""AdamW and the exponential moving average of the weights, each one pass over one flat array of all parameters.

Muon, for the matrices among them: muon.py.
"""

import contextlib
import math

import numpy as np

from minild.backend import device_of, get_array_module, to_device, to_host
from minild.engine import cuda
from minild.engine.cores import on_all_cores
from minild.engine.cuda import optimizer as cuda_optimizer
from minild.training.flat import flatten

CHUNK = 1 << 16  # elements a pass works on at a time: with its four arrays, 1 MB, so that they stay in the cache


def chunks(x, start=0, stop=None):
    """Slices of a flat array, or of its part from `start` to `stop`: one on a GPU, cache-sized pieces on the host."""
    stop = x.size if stop is None else stop
    step = CHUNK if isinstance(x, np.ndarray) else max(1, stop - start)
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]


def for_each(work, pieces, x):
    """work(piece) for each of the pieces of an array like x: on all cores at once, or on the GPU one after another."""
    if isinstance(x, np.ndarray):
        on_all_cores(work, pieces)
    else:
        for piece in pieces:
            work(piece)


def in_one_pass(formula, kernel, pieces, *arrays, **numbers):
    """formula(*arrays, **numbers), working in place element by element, or its kernel, on each slice of `pieces`."""
    if cuda.has_kernels(arrays[0]):
        formula = kernel
    for_each(lambda piece: formula(*(x[piece] for x in arrays), **numbers), pieces, arrays[0])


def adamw(g, m, v, weights, decays, *, beta1, beta2, rate, eps, decay):
    """One step in place; rate and eps hold what the hats of m̂ = m / (1 - β₁ⁿ) and v̂ = v / (1 - β₂ⁿ) stand for."""
    m += (1 - beta1) * (g - m)
    v *= beta2
    v += (1 - beta2) * (g * g)
    weights *= 1 - decay * decays
    weights -= rate * (m / (get_array_module(v).sqrt(v) + eps))


def move_average(average, weights, rate):
    average += rate * (weights - average)


class AdamW:
    """m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  θ ← θ - η (m̂ / (√v̂ + ε) + λ θ), hats without the bias to zero.

    (Loshchilov & Hutter 2017, arXiv 1711.05101, algorithm 2.) The weight decay λ acts on matrices and convolutions, not
    on vectors (biases and the normalisations' scales).

        optimizer = AdamW(module)
        optimizer.zero_grad()
        module.backward(dy, cache)       # adds into the parameters' .grad
        optimizer.step(learning_rate)
    """

    def __init__(self, module, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01):
        self._data, self._grad = flatten(module, "data"), flatten(module, "grad")
        weights, xp = self.weights, get_array_module(self.weights)
        self.m, self.v, self.steps = xp.zeros_like(weights), xp.zeros_like(weights), 0
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        decays = np.concatenate([np.full(p.data.size, p.data.ndim > 1, weights.dtype) for p in module.parameters()])
        self.decays = to_device(decays, device_of(weights))  # 1 where the weight decay acts, 0 where it does not
        self.pieces = chunks(weights)  # what of the flat arrays a step moves

    @property
    def weights(self):
        """All parameters in one flat array, of which each .data is a view."""
        return self._data.gather()

    @property
    def gradient(self):
        """All gradients in one flat array, of which each .grad is a view."""
        return self._grad.gather()

    def zero_grad(self):
        self.gradient.fill(0)

    def step(self, learning_rate):
        """Take one step along the gradient, which is left as it is."""
        self.steps += 1
        root = math.sqrt(1 - self.beta2**self.steps)  # rate · m / (√v + eps) = η m̂ / (√v̂ + ε)
        rate, eps = learning_rate * root / (1 - self.beta1**self.steps), self.eps * root
        in_one_pass(adamw, cuda_optimizer.adamw, self.pieces, self.gradient, self.m, self.v, self.weights, self.decays,
                    beta1=self.beta1, beta2=self.beta2, rate=rate, eps=eps, decay=learning_rate * self.weight_decay)

    def state_dict(self):
        """What a resumed training needs, as host arrays."""
        return {"m": to_host(self.m), "v": to_host(self.v), "steps": np.array(self.steps)}

    def load_state_dict(self, state):
        device = device_of(self.m)
        self.m[:], self.v[:] = to_device(state["m"], device), to_device(state["v"], device)
        self.steps = int(state["steps"])


class ExponentialMovingAverage:
    """w̄ ← w̄ + (1 - d) (w - w̄) with d = min(decay, (1 + n) / (10 + n)) at step n.

    The warm-up makes the average span the last tenth of a training, however long it is.

        ema = ExponentialMovingAverage(module)
        ema.update()                     # after every step
        with ema.averaged():             # within it, the module's weights are their average
    """

    def __init__(self, module, decay=0.9999):
        self._data = flatten(module, "data")
        self.average, self.decay, self.steps = self.weights.copy(), decay, 0

    @property
    def weights(self):
        """All parameters in one flat array, of which each .data is a view."""
        return self._data.gather()

    def update(self):
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        in_one_pass(move_average, cuda_optimizer.move_average, chunks(self.average), self.average, self.weights,
                    rate=rate)

    @contextlib.contextmanager
    def averaged(self):
        """Within it, the module's weights are their moving average."""
        trained = self.weights.copy()
        self.adopt()
        try:
            yield
        finally:
            self.weights[:] = trained

    def adopt(self):
        """Give the module its moving average for good."""
        self.weights[:] = self.average

    def state_dict(self):
        """What a resumed training needs, as host arrays."""
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
