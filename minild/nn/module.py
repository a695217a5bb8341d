"""Parameter and Module: what a model is made of."""

import copy

import numpy as np

from minild.backend import compute_dtype, in_inference, inference, to_device


class Parameter:
    """An array that is learned, and its gradient.

    `layout` says how the interchange format turns it: "conv" (kH, kW, Cin, Cout) is stored as OIHW, "linear"
    (Cin, Cout) as (Cout, Cin), None as it is. `init` is "fan_in" (uniform within ±1/√fan_in, PyTorch's default for
    linear and convolution weights), a number (every element), ("normal", deviation) or ("uniform", bound).
    """

    def __init__(self, shape, init, layout=None):
        self.data = np.empty(shape, np.float32)
        self.grad = None
        self.init = init
        self.layout = layout

    @property
    def value(self):
        """The array to compute with: .data; of float16 on the host a copy in float32, for its cores have no other."""
        return self.data.astype(compute_dtype(self.data), copy=False)

    def initialise(self, rng):
        """Draw the value anew from the numpy.random.Generator `rng`; a number takes nothing from it."""
        shape, dtype = self.data.shape, self.data.dtype
        init = ("uniform", float(np.prod(shape[:-1])) ** -0.5) if self.init == "fan_in" else self.init
        if not isinstance(init, tuple):
            self.data = np.full(shape, init, dtype)
        elif init[0] == "uniform":
            self.data = rng.uniform(-init[1], init[1], shape).astype(dtype)
        else:
            self.data = (rng.standard_normal(shape) * init[1]).astype(dtype)

    def accumulate(self, gradient):
        """Add to .grad. The gradient must be an array of the caller's own making: it is kept if it is the first."""
        if self.grad is None:
            self.grad = gradient
        else:
            self.grad += gradient

    def zero_grad(self):
        if self.grad is not None:
            self.grad.fill(0)


class Module:
    """Parameters, and modules that hold parameters; nothing of a call is ever kept on it.

    y, cache = module.forward(x, ...)     for training
    dx, ... = module.backward(dy, cache)  adds into each parameter's .grad, returns the gradients of the inputs
    y = module(x, ...)                    inference: no layer at any depth keeps its cache
    """

    def forward(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args, **kwargs):
        with inference():
            return self.forward(*args, **kwargs)[0]

    def children(self):
        """(name, module) of the modules held directly, a list's by index, in the order of definition."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{index}", item

    def named_parameters(self, prefix=""):
        """(name, Parameter) of everything below; the names are the reference's state-dict keys."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.children():
            yield from child.named_parameters(f"{prefix}{name}.")

    def parameters(self):
        return [parameter for _, parameter in self.named_parameters()]

    def parameter_count(self):
        return sum(parameter.data.size for parameter in self.parameters())

    def initialise(self, rng):
        """Draw every parameter anew from the numpy.random.Generator `rng`."""
        for parameter in self.parameters():
            parameter.initialise(rng)
        return self

    def zero_grad(self):
        for parameter in self.parameters():
            parameter.zero_grad()

    def astype(self, dtype):
        """Convert every parameter in place; gradients are dropped."""
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data.astype(dtype, copy=False), None
        return self

    def to(self, device):
        """Move every parameter from the host to the device of that name, in place; gradients are dropped."""
        for parameter in self.parameters():
            parameter.data, parameter.grad = to_device(parameter.data, device), None
        return self

    def replica(self):
        """A module of the same parameter arrays with gradients of its own: one a thread, for data-parallel work."""
        memo = {id(p.data): p.data for p in self.parameters()}
        memo |= {id(p.grad): None for p in self.parameters() if p.grad is not None}
        return copy.deepcopy(self, memo)


def keep(cache):
    """The cache in training, None in inference: what a layer's forward returns beside y."""
    return None if in_inference() else cache


def add_gradients(first, second):
    """The sum of two gradients of one input, either of which may be None (no gradient)."""
    if first is None or second is None:
        return second if first is None else first
    return first + second
