"""Every kernel compiles for every architecture and either dtype, attention at its widest, with NVRTC. No GPU needed."""

import warnings
from pathlib import Path

import pytest

from minild.engine import cuda

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy warns that it finds no CUDA
    pytest.importorskip("cupy")
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
from cupy._core import core

try:
    nvrtc.getVersion()
except Exception as error:
    pytest.skip(f"no NVRTC: {error}", allow_module_level=True)

FILES = sorted(path.stem for path in Path(cuda.__file__).parent.glob("*.cu"))


@pytest.mark.parametrize("architecture", [75, 86, 90, 120])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("file", FILES)
def test_kernel_compiles(file, dtype, architecture):
    options = (*core.assemble_cupy_compiler_options(()), *cuda.OPTIONS, f"-arch=sm_{architecture}")
    program = nvrtc.createProgram(cuda.source(file, dtype, SLICES=10), f"{file}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    log = nvrtc.getProgramLog(program)
    assert "warning" not in log, log
