"""Stable Diffusion 1 at its own size, random weights: the same results as the reference's, and in how much memory.

tests/full_size.py runs each part in a process of its own, of either library. `pytest -m slow -s` prints time and memory
side by side.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import parity.reference  # noqa: F401  a skip where it is not installed
from minild.engine.cores import core_count

pytestmark = [
    pytest.mark.slow,  # seven minutes, 4.3 GB of disk and 12 GB of memory
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured in Linux's way"),
]
PROGRAM = Path(__file__).parents[1] / "full_size.py"
TOLERANCE = 1e-5  # of the largest absolute value
MOST_MEMORY = {"float32": 6.0, "float16": 3.9}  # GB of 10⁹ bytes
WEIGHTS = 1.066235307  # 10⁹ parameters of the three models


def program(*arguments):
    """Run tests/full_size.py -> the lines of its answer."""
    done = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The pipeline's folder; its parent takes results, and is removed in the end."""
    root = tmp_path_factory.mktemp("full_size")
    try:
        program("make", root / "float32")
        yield root / "float32"
    finally:
        shutil.rmtree(root)


def run(part, folder, *settings):
    """(what the part computes, the figures that the program tells)."""
    output = folder.parent / "y.npy"
    told = json.loads(program(part, folder, *settings, "--output", output)[-1])
    print(f"  {' '.join(settings) or 'minild':36}", *(f"{name} {figure}" for name, figure in told.items()), sep="  ")
    return np.load(output), told


def assert_same(ours, theirs):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float32
    scale = np.abs(theirs).max()
    assert theirs.std() > 0.02 * scale  # there is something to compare
    error = np.abs(ours - theirs).max() / scale
    print(f"    off by {error:.2g} of the largest value")
    assert error <= TOLERANCE


@pytest.mark.parametrize("part", ["text_encoder", "unet", "decoder", "picture"])
def test_it_agrees_with_the_reference_in_less_than_6_gb(folder, part):
    print(f"\n{part}, {core_count()} cores")
    theirs, _ = run(part, folder, "--library", "diffusers")
    for settings in (), ("--textbook",):
        ours, told = run(part, folder, *settings)
        assert_same(ours, theirs)
        assert told["peak"] < MOST_MEMORY["float32"]


def test_weights_in_float16_take_half_the_memory(folder):
    """The reference rounds them likewise, and both compute in float32."""
    print("\npicture")
    theirs, _ = run("picture", folder, "--dtype", "float16", "--library", "diffusers")
    ours, told = run("picture", folder, "--dtype", "float16")
    assert_same(ours, theirs)
    assert told["weights"] == round(2 * WEIGHTS, 2)
    assert told["peak"] < MOST_MEMORY["float16"]
