"""Parameter and Module: what a model is made of."""

import copy
import math
import threading

import numpy as np

from minild.backend import compute_dtype, to_device
from minild.engine.memory import inference

# For parameters that are used before anybody initialised or loaded them.
_undrawn, _drawing = np.random.default_rng(0), threading.Lock()


class Parameter:
    """An array that is learned, and its gradient.

    `layout` says how the interchange format turns it: "conv" (kH, kW, Cin, Cout) is stored as OIHW, "linear"
    (Cin, Cout) as (Cout, Cin), None as it is. `init` is "fan_in" (uniform within ±1/√fan_in, PyTorch's default for
    linear and convolution weights), a number (every element), ("normal", deviation), ("normal", deviation, mean) or
    ("uniform", bound).

    Values are drawn by `initialise`, or at their first use: a model that is about to be loaded never draws any.

    One that is `frozen` is used but not trained: it takes no gradient, and layers do not compute any (nn.frozen).
    `listener`, if there is one, is called as listener(parameter) at every change of the gradient.
    """

    def __init__(self, shape, init, layout=None):
        self.shape, self.init, self.layout = tuple(shape), init, layout
        self.grad, self.frozen, self.listener = None, False, None
        self._data = None

    @property
    def data(self):
        """The array as it is stored."""
        if self._data is None:
            with _drawing:  # by one thread, for all
                if self._data is None:
                    self.initialise(_undrawn)
        return self._data

    @data.setter
    def data(self, array):
        self._data = array

    @property
    def size(self):
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def value(self):
        """The array to compute with: .data; of float16 on the host a copy in float32, for its cores have no other."""
        return self.data.astype(compute_dtype(self.data), copy=False)

    def initialise(self, rng):
        """Draw the value anew from the numpy.random.Generator `rng`; a number takes nothing from it."""
        dtype = np.float32 if self._data is None else self._data.dtype
        init = ("uniform", float(np.prod(self.shape[:-1])) ** -0.5) if self.init == "fan_in" else self.init
        if not isinstance(init, tuple):
            self.data = np.full(self.shape, init, dtype)
        elif init[0] == "uniform":
            self.data = rng.uniform(-init[1], init[1], self.shape).astype(dtype)
        else:
            mean = init[2] if len(init) > 2 else 0
            self.data = (mean + rng.standard_normal(self.shape) * init[1]).astype(dtype)

    def accumulate(self, gradient):
        """Add to .grad. The gradient must be an array of the caller's own making: it is kept if it is the first.

        Nothing happens to one that is frozen.
        """
        if self.frozen:
            return
        if self.grad is None:
            self.grad = gradient
        else:
            self.grad += gradient
        if self.listener:
            self.listener(self)

    def zero_grad(self):
        """Set the gradient to zeros, in place."""
        if self.grad is not None:
            self.grad.fill(0)
        if self.listener:
            self.listener(self)

    def replica(self):
        """A Parameter of the same array with a gradient of its own."""
        twin = copy.copy(self)
        twin.data, twin.grad, twin.listener = self.data, None, None
        return twin

    def __repr__(self):
        return f"Parameter{self.shape}"


class Buffer:
    """An array that is kept with the weights but not learned by gradient: batch norm's running statistics."""

    layout = None  # as a Parameter's: stored as it is

    def __init__(self, shape, value):
        self.shape, self.grad = tuple(shape), None  # never any
        self.data = np.full(shape, value, np.float32)

    @property
    def value(self):
        """The array to compute with, as Parameter.value."""
        return self.data.astype(compute_dtype(self.data), copy=False)


class Module:
    """Parameters, and modules that hold parameters; nothing of a call is ever kept on it.

    They are found where they are attributes, or in lists that are attributes; not in tuples or dicts.

    y, cache = module.forward(x, ...)     for training
    dx, ... = module.backward(dy, cache)  adds into each parameter's .grad, returns the gradients of the inputs
    y = module(x, ...)                    inference: no layer at any depth keeps its cache
    """

    def forward(self, *args, **kwargs):
        """-> (y, cache). A subclass defines it, and backward(dy, cache) -> dx with it."""
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

    def own_parameters(self):
        """(name, Parameter) of those held directly."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Parameter)]

    def named_parameters(self, prefix=""):
        """(name, Parameter) of everything below; the names are the reference's state-dict keys."""
        for name, value in self.own_parameters():
            yield prefix + name, value
        for name, child in self.children():
            yield from child.named_parameters(f"{prefix}{name}.")

    def parameters(self):
        """Every Parameter below, in the order of named_parameters."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_buffers(self, prefix=""):
        """(name, Buffer) of everything below, named like parameters."""
        for name, value in vars(self).items():
            if isinstance(value, Buffer):
                yield prefix + name, value
        for name, child in self.children():
            yield from child.named_buffers(f"{prefix}{name}.")

    def buffers(self):
        """Every Buffer below, in the order of named_buffers."""
        return [buffer for _, buffer in self.named_buffers()]

    def parameter_count(self):
        """How many numbers are learned."""
        return sum(parameter.size for parameter in self.parameters())

    def initialise(self, rng):
        """Draw every parameter anew from the numpy.random.Generator `rng`."""
        for parameter in self.parameters():
            parameter.initialise(rng)
        return self

    def zero_grad(self):
        """Set every gradient to zeros, in place."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def freeze(self):
        """Let no parameter below be trained from now on: they have no gradient, and get none."""
        for parameter in self.parameters():
            parameter.frozen, parameter.grad = True, None
        return self

    def astype(self, dtype):
        """Convert every parameter and buffer in place; gradients are dropped."""
        for array in [*self.parameters(), *self.buffers()]:
            array.data, array.grad = array.data.astype(dtype, copy=False), None
        return self

    def to(self, device):
        """Move every parameter and buffer from the host to the device of that name, in place; gradients are dropped."""
        for array in [*self.parameters(), *self.buffers()]:
            array.data, array.grad = to_device(array.data, device), None
        return self

    def replica(self):
        """A module of the same parameter arrays with gradients of its own: one a thread, for data-parallel work."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            setattr(twin, name, _replica(value))
        return twin

    def __repr__(self):
        """The modules as a tree, each with the shapes of its own parameters; the first line counts them all."""
        own = _shapes(self)
        head = f"{type(self).__name__}{f' of {own}' if own else ''}: {self.parameter_count():,} parameters"
        return "\n".join([head, *_tree(self)])


def _replica(value):
    if isinstance(value, list):
        return [_replica(item) for item in value]
    return value.replica() if isinstance(value, (Module, Parameter)) else value


def _shapes(module):
    return ", ".join(f"{name} {parameter.shape}" for name, parameter in module.own_parameters())


def _tree(module):
    """The lines under a module in its repr."""
    lines = []
    for name, child in module.children():
        shapes = _shapes(child)
        lines.append(f"  {name}: {type(child).__name__}{f' of {shapes}' if shapes else ''}")
        lines += [f"  {line}" for line in _tree(child)]
    return lines


def add_gradients(first, second):
    """The sum of two gradients of one input, either of which may be None (no gradient)."""
    if first is None or second is None:
        return second if first is None else first
    return first + second
