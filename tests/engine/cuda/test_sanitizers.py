"""The emulated kernels under the sanitizers: no access outside an array, no barrier missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from . import emulator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(emulator.GXX is None, reason="no g++")]
FIXED_ADDRESSES = ["setarch", "--addr-no-randomize"]  # for the thread sanitizer, which knows few memory layouts


def run_under(sanitizer, command, **environment):
    """The command, that sanitizer's library loaded first -> its CompletedProcess; a skip where there is none."""
    name = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    library = subprocess.run([emulator.GXX, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(library):
        pytest.skip(f"no {name}")
    fixed = shutil.which("setarch") and subprocess.run([*FIXED_ADDRESSES, "true"], capture_output=True).returncode == 0
    environment = {**os.environ, **environment, "LD_PRELOAD": library, "SANITIZE": sanitizer,
                   "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1", "OPENBLAS_NUM_THREADS": "1"}
    command = [*(FIXED_ADDRESSES if fixed else []), *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_no_kernel_is_reported(sanitizer):
    tests = str(Path(__file__).parent / "test_emulation.py")
    done = run_under(sanitizer, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests])
    assert done.returncode == 0 and " passed" in done.stdout, (done.stdout + done.stderr)[-5000:]


RACE = """
extern "C" __global__ void shift(float* x) {
    __shared__ float shared[64];
    shared[threadIdx.x] = x[threadIdx.x];
    BARRIER
    x[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}
"""
RUN_RACE = """
import sys, numpy as np
sys.path.insert(0, "tests")
from engine.cuda import emulator
x = np.zeros(65, "f")
emulator.run(emulator.build(sys.argv[1], sys.argv[2]), "shift", (1,), (int(sys.argv[3]),), (x,))
"""


@pytest.mark.parametrize(("sanitizer", "barrier", "threads", "report"), [
    ("thread", "__syncthreads();", 64, None),
    ("thread", "", 64, "data race"),
    ("address", "__syncthreads();", 64, None),
    ("address", "__syncthreads();", 65, "global-buffer-overflow"),
])
def test_the_sanitizers_find_what_they_are_for(sanitizer, barrier, threads, report):
    text = RACE.replace("BARRIER", barrier)
    done = run_under(sanitizer, [sys.executable, "-c", RUN_RACE, text, sanitizer, str(threads)])
    if report is None:
        assert done.returncode == 0, done.stderr[-5000:]
    else:
        assert done.returncode != 0 and report in done.stderr, done.stderr[-5000:]
