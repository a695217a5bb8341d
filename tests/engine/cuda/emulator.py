"""The kernels of minild.engine.cuda, built by g++ with emulation.h, to be called on NumPy arrays.

With SANITIZE=address or thread in the environment they are built under that sanitizer, whose library the Python that
calls them must have been started with (LD_PRELOAD).
"""

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from minild.engine import cuda

GXX = shutil.which("g++")
SCALAR_LETTERS = {"float32": "f", "int32": "i", "int64": "q"}
ARRAY_LETTERS = {"float32": "F", "float16": "H"}
_folder = tempfile.TemporaryDirectory()


def build(text, sanitizer=None):
    """The shared library of a CUDA source."""
    names = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(.*\)\s*)?(\w+)\(', text)
    unit = f'#include "emulation.h"\n{text}\n' + "".join(f"EXPORT({name})\n" for name in names)
    handle, library = tempfile.mkstemp(suffix=".so", dir=_folder.name)
    os.close(handle)
    command = [GXX, "-std=c++20", "-O1", "-g", "-shared", "-fPIC", "-pthread", f"-I{Path(__file__).parent}"]
    if sanitizer:
        command += [f"-fsanitize={sanitizer}", "-fno-omit-frame-pointer"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # g++ itself goes without
    subprocess.run([*command, "-x", "c++", "-", "-o", library], input=unit, text=True, check=True, env=environment)
    return ctypes.CDLL(library)


@functools.cache
def _library(file, dtype, constants):
    text = cuda.source(file, dtype, **dict(constants)).replace("#include <cuda_fp16.h>\n", "")
    return build(text, os.environ.get("SANITIZE"))


def _letter(argument):
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ARRAY_LETTERS[argument.dtype.name]
    return SCALAR_LETTERS[argument.dtype.name]


def run(library, name, grid, block, arguments):
    """Call a kernel as CuPy would. AssertionError for what a GPU would refuse, or take for something else."""
    signature = getattr(library, f"signature_{name}")
    signature.restype = ctypes.c_char_p
    assert "".join(map(_letter, arguments)) == signature().decode(), name
    assert np.prod(block) <= 1024 and max(grid[1:], default=1) < 1 << 16, (name, grid, block)
    dims = [(ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size))) for size in (grid, block)]
    # As for cuLaunchKernel: the address of each argument; and an array is passed as its own address.
    values = [np.array(a.ctypes.data if isinstance(a, np.ndarray) else a) for a in arguments]
    getattr(library, f"launch_{name}")(*dims, (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values)))


def get_kernel(file, name, dtype, **constants):
    """What cuda.get_kernel gives, on the CPU."""
    return functools.partial(run, _library(file, np.dtype(dtype), tuple(constants.items())), name)


@pytest.fixture
def emulated(monkeypatch):
    """Within it, the engine's float32 and float16 on the host go to the kernels."""
    monkeypatch.setattr(cuda, "has_kernels", lambda x: x.dtype in cuda.SCALARS)
    monkeypatch.setattr(cuda, "get_kernel", get_kernel)
