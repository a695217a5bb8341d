"""A second device for those without a GPU: arrays that NumPy's functions refuse, as they refuse CuPy's.

A function that calls np. where it should ask for its argument's array module fails on it, as it would on a GPU.
"""

import operator

import numpy as np

from minild.backend import register_device

REFUSED = "NumPy's functions take no array of another device: call those of get_array_module(x)"
OPERATORS = "add sub mul truediv floordiv mod pow matmul".split()
COMPARISONS = "lt le gt ge eq ne".split()


def _host(value):
    """DeviceArray -> the array within, at any depth; a host array among them is an error."""
    if isinstance(value, DeviceArray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError("a host array among arrays of a device: make it with get_array_module(x)")
    if isinstance(value, (tuple, list)):
        return type(value)(_host(part) for part in value)
    return {k: _host(v) for k, v in value.items()} if isinstance(value, dict) else value


def _device(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    return type(value)(map(_device, value)) if isinstance(value, (tuple, list)) else value


class DeviceArray:
    """An array of the second device."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        raise TypeError(REFUSED)

    def __array_ufunc__(self, *args, **kwargs):
        raise TypeError(REFUSED)

    def __array_function__(self, *args, **kwargs):
        raise TypeError(REFUSED)

    def __getitem__(self, index):
        return _device(self._array[_host(index)])

    def __setitem__(self, index, value):
        self._array[_host(index)] = _host(value)

    def __len__(self):
        return len(self._array)

    def __getattr__(self, name):
        attribute = getattr(object.__getattribute__(self, "_array"), name)
        return _wrapped(attribute) if callable(attribute) else _device(attribute)


def _wrapped(function):
    def call(*args, **kwargs):
        return _device(function(*_host(args), **_host(kwargs)))

    if isinstance(function, np.ufunc):
        call.at = _wrapped(function.at)
    return call


def _define_operators():
    for name in (*OPERATORS, *COMPARISONS):
        plain = getattr(operator, name)
        setattr(DeviceArray, f"__{name}__", lambda a, b, f=plain: _device(f(a._array, _host(b))))
        if name in OPERATORS:
            setattr(DeviceArray, f"__r{name}__", lambda a, b, f=plain: _device(f(_host(b), a._array)))
            in_place = getattr(operator, f"i{name}")

            def change(a, b, f=in_place):
                f(a._array, _host(b))
                return a

            setattr(DeviceArray, f"__i{name}__", change)
    for name in ("neg", "pos", "abs", "invert"):
        plain = getattr(operator, name)
        setattr(DeviceArray, f"__{name}__", lambda a, f=plain: _device(f(a._array)))


_define_operators()


class ArrayModule:
    """The second device's array module: NumPy's functions on its arrays."""

    def __getattr__(self, name):
        attribute = getattr(np, name)
        if callable(attribute) and not isinstance(attribute, type):
            return _wrapped(attribute)
        return attribute


def register():
    """Make it known to the backend as the device "second"."""
    register_device("second", ArrayModule(), DeviceArray, lambda x: DeviceArray(x.copy()), lambda x: x._array.copy())


def moved(value, convert):
    """A copy of arguments, at any depth, with every host array converted."""
    if isinstance(value, np.ndarray):
        return convert(value)
    if isinstance(value, dict):
        return {name: moved(part, convert) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [moved(part, convert) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def to_host(array):
    """A copy of a DeviceArray as NumPy's."""
    return np.array(array._array)
