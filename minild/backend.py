"""Which array module, which device, which random numbers, how many threads.

Everything above `ops` is written without knowing the device: arrays carry it. Data crosses between host and device
only through `to_device` and `to_host`, so that a crossing can be seen in the code and counted by a test.
"""

import contextlib
import ctypes
import functools
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from minild.errors import UserError

# .works_alone: it is one of several that share the cores; .workspace: its arrays; .inference: it keeps no caches
_thread = threading.local()


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


@contextlib.contextmanager
def inference():
    """Within it, nothing that this thread computes will be asked for its gradient: caches need not be kept."""
    outer, _thread.inference = in_inference(), True
    try:
        yield
    finally:
        _thread.inference = outer


def in_inference():
    return getattr(_thread, "inference", False)


def image_generators(seed, count):
    """One random generator an image: picture i of a batch draws as the picture of seed + i does alone."""
    return [np.random.default_rng(seed + i) for i in range(count)]


def standard_normal(generators, shape, dtype="float32"):
    """(N, *shape) unit-variance noise on the host, row i drawn from generators[i]."""
    return np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators]).astype(dtype, copy=False)


def core_count():
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1




@functools.cache
def _blas():
    return ThreadpoolController()  # found once: looking for the libraries takes longer than many an operation


def blas_threads(count):
    """Context manager: BLAS uses `count` threads within (1 where replicas run on threads of their own)."""
    return _blas().limit(limits=count, user_api="blas")


def _join_the_cores():
    _thread.works_alone = True


def worker_threads(count):
    """A ThreadPoolExecutor of threads that share the cores: none of them spreads its work over the others."""
    return ThreadPoolExecutor(count, initializer=_join_the_cores)


@contextlib.contextmanager
def side_by_side():
    """A map() for work on host arrays that runs on all cores at once, BLAS on one thread in each."""
    with blas_threads(1), worker_threads(core_count()) as pool:
        yield pool.map


@functools.cache
def _all_cores():
    return worker_threads(core_count())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_all_cores.cache_clear)  # the threads stay behind


def on_all_cores(function, items):
    """Call function(item) for every item, on all cores at once; one after the other in a thread that works alone.

    For the pieces of one large operation on host arrays. `function` writes its result where it belongs.
    """
    if len(items) < 2 or core_count() == 1 or getattr(_thread, "works_alone", False):
        for item in items:
            function(item)
        return
    with blas_threads(1):
        for _ in _all_cores().map(function, items):
            pass  # the results are None; to ask for them raises what a piece raised


PIECE = 1 << 18  # elements worked on at a time: in float32 a megabyte, about what a core caches for itself
PIECE_ON_GPU = 1 << 27  # there only the memory is a limit


def pieces(count, size, like, least=1):
    """Slices that cover `count` rows of `size` elements: a piece each, but at least `least` rows."""
    step = max((PIECE if isinstance(like, np.ndarray) else PIECE_ON_GPU) // max(size, 1), least)
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def add_to(y, x):
    """y += x for arrays (..., C) of one shape, in pieces on all cores. y must be contiguous."""
    rows, other = y.reshape(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])

    def add(part):
        rows[part] += other[part]

    on_all_cores(add, pieces(*rows.shape, y))


def workspace(slot, shape, like):
    """An uninitialised array of the shape, in the dtype and on the device of the array `like`.

    On the host it is the same memory at every call of this thread with the same `slot`, a string: for what lives within
    one operation on one piece of its work. To touch memory fresh from the kernel costs more than most arithmetic on it.
    """
    if not isinstance(like, np.ndarray):
        return get_array_module(like).empty(shape, like.dtype)
    arrays = vars(_thread).setdefault("workspace", {})
    size = math.prod(shape)
    if (slot, like.dtype) not in arrays or arrays[slot, like.dtype].size < size:
        arrays[slot, like.dtype] = np.empty(size, like.dtype)
    return arrays[slot, like.dtype][:size].reshape(shape)


def keep_freed_memory():
    """Let the allocator reuse large freed blocks instead of returning them to the kernel.

    A step of a training or of a sampler allocates the same arrays again and again. By default glibc maps and unmaps
    every block over 128 KB, and the page faults cost more than the arithmetic of an elementwise operation on it. Linux
    with glibc only; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_arena_max, 1)
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, 1 << 30)
