"""A test double of CuPy over NumPy, stricter than CuPy: what works here keeps to the device.

`xp` is the array module, `DeviceArray` its array. A host array in a device call is a TypeError, NumPy's functions
refuse a DeviceArray, reductions stay 0-d on the "device", and all that makes a host wait for a device is counted.
Where CuPy is installed (no GPU is needed) only what CuPy has exists here, with the keywords that CuPy takes.
"""

import contextlib
import inspect
import operator
import re
import warnings

import numpy as np

from minild.backend import register_device

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns that it finds no CUDA
        import cupy
except ImportError:
    cupy = None

SYNCHRONISING = {"nonzero", "flatnonzero", "argwhere", "unique", "array_equal", "allclose"}


class Counter:
    """How many times the host waited for the device, and why."""

    def __init__(self):
        self.reasons = []

    @property
    def count(self):
        return len(self.reasons)


_counters = []


def _synchronise(reason):
    for counter in _counters:
        counter.reasons.append(reason)


@contextlib.contextmanager
def count_synchronisations():
    """with count_synchronisations() as c: ...; c.count, c.reasons."""
    counter = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _unwrap(value, where):
    """DeviceArray -> the array within, at any depth of tuples, lists, slices and dicts; a host array is an error."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"{where}: a host array in a device call; use backend.to_device")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(v, where) for v in value)
    if isinstance(value, dict):
        return {k: _unwrap(v, where) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(None if v is None else operator.index(v) for v in (value.start, value.stop, value.step)))
    return value


def _wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(_wrap(v) for v in value)
    return value


def _require_keywords(reference, name, args, kwargs):
    """TypeError for arguments that CuPy's function of that name does not take."""
    try:
        signature = inspect.signature(reference)
    except (TypeError, ValueError):  # a compiled method: its docstring opens with the signature
        line = (reference.__doc__ or "").split("\n")[0]
        if not isinstance(reference, np.ufunc) and "(" in line and "**" not in line:
            unknown = [k for k in kwargs if not re.search(rf"\b{k}\b", line)]
            if unknown:
                raise TypeError(f"{name}: CuPy has no argument {', '.join(unknown)}") from None
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: CuPy's call differs: {error}") from None


def _device_call(function, name, reference):
    def call(*args, **kwargs):
        if reference is not None:
            _require_keywords(reference, name, args, kwargs)
        if name in SYNCHRONISING or (name == "where" and len(args) == 1):
            _synchronise(name)
        out = kwargs.get("out")
        result = function(*_unwrap(args, name), **_unwrap(kwargs, name))
        return out if isinstance(out, DeviceArray) else _wrap(result)

    for method in ("at", "reduce", "accumulate", "outer"):
        if isinstance(function, np.ufunc) and hasattr(reference or function, method):
            setattr(call, method, _device_call(getattr(function, method), f"{name}.{method}", None))
    call.__name__ = name
    return call


class Namespace:
    """The double of `cupy` or of one of its submodules."""

    def __init__(self, module, reference, name):
        self._module, self._reference, self._name = module, reference, name

    def __repr__(self):
        return f"<double of {self._name}>"

    def __getattr__(self, attribute):
        name = f"{self._name}.{attribute}"
        if self._reference is not None and not hasattr(self._reference, attribute):
            raise AttributeError(f"CuPy has no {name}")
        if attribute == "random":
            raise AttributeError("random numbers are drawn on the host: minild.random.standard_normal")
        if not hasattr(self._module, attribute):
            raise AttributeError(f"{name} is not in the double: a kernel of CuPy's own needs a GPU")
        value = getattr(self._module, attribute)
        reference = None if self._reference is None else getattr(self._reference, attribute)
        if inspect.ismodule(value):
            return Namespace(value, reference, name)
        if attribute == "ndarray":
            return DeviceArray
        if isinstance(value, type) or not callable(value):
            return value
        return _device_call(value, attribute, reference)

    def asnumpy(self, x):
        return to_host(x)


class DeviceArray:
    """An array on the "device"."""

    __hash__ = None

    def __init__(self, host):
        self._host = host

    def __repr__(self):
        return f"DeviceArray({self._host!r})"

    def __array__(self, *args, **kwargs):
        raise TypeError("a device array where a host array is wanted; use backend.to_host")

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} of a device array; use xp.{function.__name__}")

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        scalar_first = len(args) == 2 and isinstance(args[0], np.generic) and args[1] is self
        if method == "__call__" and scalar_first and not kwargs:  # np.float32(2) * x, which CuPy takes too
            return _wrap(ufunc(args[0], self._host))
        raise TypeError(f"numpy.{ufunc.__name__} of a device array; use xp.{ufunc.__name__}")

    def __getattr__(self, attribute):
        if attribute.startswith("__") or (cupy is not None and not hasattr(cupy.ndarray, attribute)):
            raise AttributeError(f"a CuPy array has no {attribute}")
        value = getattr(self._host, attribute)
        if callable(value):
            return _device_call(value, attribute, None if cupy is None else getattr(cupy.ndarray, attribute))
        return DeviceArray(value) if isinstance(value, np.ndarray) else value

    @property
    def shape(self):
        return self._host.shape

    @property
    def dtype(self):
        return self._host.dtype

    @property
    def ndim(self):
        return self._host.ndim

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (_wrap(row) for row in self._host)

    def __getitem__(self, key):
        self._count_mask(key)
        return _wrap(self._host[_unwrap(key, "index")])

    def __setitem__(self, key, value):
        self._host[_unwrap(key, "index")] = _unwrap(value, "assignment")

    @staticmethod
    def _count_mask(key):
        """x[mask] has a size that only the device knows; x[mask] = v does not ask for it."""
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, DeviceArray) and part.dtype == bool:
                _synchronise("boolean index")

    def get(self):
        _synchronise("get")
        return self._host.copy()

    def item(self):
        _synchronise("item")
        return self._host.item()

    def tolist(self):
        _synchronise("tolist")
        return self._host.tolist()

    def __float__(self):
        _synchronise("float")
        return float(self._host)

    def __int__(self):
        _synchronise("int")
        return int(self._host)

    def __index__(self):
        _synchronise("index")
        return operator.index(self._host)

    def __bool__(self):
        _synchronise("bool")
        return bool(self._host)


def _add_operators():
    def binary(name, symbol):
        def forward(self, other):
            return _wrap(getattr(operator, name)(self._host, _unwrap(other, symbol)))

        def reflected(self, other):
            return _wrap(getattr(operator, name)(_unwrap(other, symbol), self._host))

        return forward, reflected

    def in_place(name, symbol):
        def operate(self, other):
            target = self._host
            result = getattr(operator, name)(target, _unwrap(other, symbol))
            if result is not target:  # a 0-d array may come back as a scalar
                target[...] = result
            return self

        return operate

    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor",
                 "lshift", "rshift"):
        bare = name.strip("_")
        forward, reflected = binary(name, bare)
        setattr(DeviceArray, f"__{bare}__", forward)
        setattr(DeviceArray, f"__r{bare}__", reflected)
        setattr(DeviceArray, f"__i{bare}__", in_place("i" + bare, bare))
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(DeviceArray, f"__{name}__", binary(name, name)[0])
    for name in ("neg", "pos", "abs", "invert"):
        setattr(DeviceArray, f"__{name}__", lambda self, name=name: _wrap(getattr(operator, name)(self._host)))


_add_operators()
xp = Namespace(np, cupy, "xp")


def to_device(x):
    """A copy of a host array on the "device"."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"to_device: expected a host array, got {type(x).__name__}")
    return DeviceArray(x.copy())


def to_host(x):
    """A copy on the host; a synchronisation."""
    return x.get()


def register():
    """Make the double known to minild.backend as the device "double"."""
    register_device("double", xp, DeviceArray, to_device, to_host)
