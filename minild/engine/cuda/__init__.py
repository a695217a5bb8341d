"""CUDA kernels where CuPy would launch many: convolution, normalisation, activations, attention, the optimiser's step.

Each file's functions have the names and the contracts of minild.ops, and a .cu file of the same name holds the kernels.
They serve CuPy's arrays of float32 and float16; float64 goes by the textbook. Sums are in float32 whatever the arrays
hold. Checked by compilation for sm_75, 86, 90 and 120, and by emulation on the CPU against the textbook, under the
address and the thread sanitizer; not run on a GPU yet, and not measured.
"""

import functools
from pathlib import Path

import numpy as np

from minild.backend import get_array_module

SCALARS = {np.dtype(np.float32): "float", np.dtype(np.float16): "__half"}
OPTIONS = ("-std=c++17",)
THREADS, LARGEST_GRID = 256, 1 << 14  # of an elementwise kernel: beyond, each thread takes several elements


def has_kernels(x):
    """Whether there are kernels for the array `x`: one of CuPy's own, of float32 or float16."""
    return type(x).__module__.split(".")[0] == "cupy" and x.dtype in SCALARS


def source(file, dtype, **constants):
    """The CUDA C++ of `file`.cu for arrays of that dtype; each of `constants` is defined as a macro ahead of it."""
    lines = ["#include <cuda_fp16.h>", f"using scalar = {SCALARS[np.dtype(dtype)]};"]
    lines += [f"#define {name} {value}" for name, value in constants.items()]
    return "\n".join([*lines, (Path(__file__).parent / f"{file}.cu").read_text(encoding="utf-8")])


@functools.cache
def _module(file, dtype, constants):
    import cupy

    return cupy.RawModule(code=source(file, dtype, **dict(constants)), options=OPTIONS)


def get_kernel(file, name, dtype, **constants):
    """The kernel `name` of `file`.cu, compiled at its first use: a function of (grid, block, arguments)."""
    return _module(file, np.dtype(dtype), tuple(constants.items())).get_function(name)


def launch(file, name, like, grid, block, *arguments, **constants):
    """Run a kernel compiled for the dtype of `like`. An int is passed as C's int, a float as its float."""
    def in_c(a):  # np.int32 refuses what does not fit
        return np.int32(a) if isinstance(a, int) else np.float32(a) if isinstance(a, float) else a

    if all(grid):  # an empty array is no work, and no legal grid
        get_kernel(file, name, like.dtype, **constants)(grid, block, tuple(map(in_c, arguments)))


def dense(x, like):
    """The array as a kernel reads it: contiguous, of the dtype of `like`."""
    return get_array_module(like).ascontiguousarray(x, dtype=like.dtype)


def elementwise(file, name, count, *arguments):
    """Run a kernel whose threads stride over `count` elements, its last argument; the first has the dtype."""
    grid = (min(-(-count // THREADS), LARGEST_GRID),)
    launch(file, name, arguments[0], grid, (THREADS,), *arguments, np.int64(count))
