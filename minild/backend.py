"""Which array module, and which device.

Everything above `ops` is written without knowing the device: arrays carry it. Data crosses between host and device
only through `to_device` and `to_host`, so that a crossing can be seen in the code and counted by a test.
"""

from typing import Any, NamedTuple

import numpy as np

from minild.errors import UserError


class Device(NamedTuple):
    xp: Any  # the array module
    array_type: type
    to_device: Any  # host array -> device array
    to_host: Any  # device array -> host array


_devices = {"cpu": Device(np, np.ndarray, lambda x: x, lambda x: x)}


def register_device(name, xp, array_type, to_device, to_host):
    """Make an array module known under a device name (CuPy's is registered on first use; tests add a double)."""
    _devices[name] = Device(xp, array_type, to_device, to_host)


def _load_cuda():
    try:
        import cupy
    except ImportError:
        raise UserError("no CuPy for --device cuda: pip install 'minild[cuda13]' or use --device cpu") from None
    if not cupy.cuda.is_available():
        raise UserError("no GPU found for --device cuda: use --device cpu")
    register_device("cuda", cupy, cupy.ndarray, cupy.asarray, cupy.asnumpy)


def get_device(name):
    """The Device called `name`: "cpu", "cuda" or one registered by a test. UserError where it is not there."""
    if name == "cuda" and name not in _devices:
        _load_cuda()
    if name not in _devices:
        raise UserError(f"unknown device {name!r}: use cpu or cuda")
    return _devices[name]


def device_of(x):
    """The name of the device that holds the array `x`."""
    for name, device in _devices.items():
        if isinstance(x, device.array_type):
            return name
    if type(x).__module__.split(".")[0] == "cupy":  # an array made by the caller's own CuPy
        _load_cuda()
        return "cuda"
    raise ValueError(f"expected an array of a known device, got {type(x).__name__}")


def get_array_module(x):
    """NumPy or CuPy (or a test's double), by the type of the array `x`."""
    return np if isinstance(x, np.ndarray) else _devices[device_of(x)].xp


def to_device(x, device):
    """Copy a host array to the device of that name; a host array for "cpu" is returned as it is."""
    return get_device(device).to_device(x)


def to_host(x):
    """Copy an array to the host; a host array is returned as it is."""
    return x if isinstance(x, np.ndarray) else _devices[device_of(x)].to_host(x)


def compute_dtype(x):
    """The dtype to compute in with the array `x`: its own, but float32 for float16 on the host."""
    return np.dtype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float16 else x.dtype
