"""One test file runs over every array backend present: numpy, a double of CuPy, and CuPy where there is a GPU.

The whole suite runs in a process for each core; tests that are named run in one, which begins sooner.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import device_double

from minild import backend
from minild.engine import memory
from minild.engine.cores import core_count

device_double.register()


def pytest_xdist_auto_num_workers(config):
    """How many processes `-n auto` means."""
    if config.args_source is not config.ArgsSource.TESTPATHS:
        return 0
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of each process: more would only wait for each other
    return core_count()


def has_gpu():
    return device_double.cupy is not None and device_double.cupy.cuda.is_available()


DEVICES = ["cpu", "double", pytest.param("cuda", marks=pytest.mark.skipif(not has_gpu(), reason="no GPU for CuPy"))]


@pytest.fixture(params=DEVICES)
def device(request):
    """The name of a device for backend.to_device: "cpu", "double", and "cuda" where there is one."""
    return request.param


@pytest.fixture(params=["whole", "in pieces"])
def work(request, monkeypatch):
    """How an operation goes about its work: all at once, as with arrays this small, or in many pieces."""
    if request.param == "in pieces":
        monkeypatch.setattr(memory, "PIECE", 10)
        monkeypatch.setattr(memory, "PIECE_ON_GPU", 10)
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def on_device(device):
    """on_device(op, *args, **kwargs): the op with host arrays sent to the device and its y brought back."""

    def send(x):
        return backend.to_device(x, device) if isinstance(x, np.ndarray) else x

    def run(op, *args, **kwargs):
        y = op(*map(send, args), **{k: send(v) for k, v in kwargs.items()})[0]
        return tuple(map(backend.to_host, y)) if isinstance(y, tuple) else backend.to_host(y)

    return run


@pytest.fixture
def ctrl_c():
    """Ctrl-C as Python has it, also where a shell has started the tests in the background, and so with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
