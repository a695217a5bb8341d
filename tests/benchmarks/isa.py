"""Which instruction set the libraries compute with: how they are held to one, and what each of them says it uses."""

import contextlib
import os
import platform
import re

from minild.errors import UserError

AVX512, AVX2 = "avx512", "avx2"
TITLES = {AVX512: "AVX-512", AVX2: "AVX2"}
HELD = {  # what holds the libraries to a set; NumPy's variable is made of what its build knows
    AVX512: {},
    AVX2: {
        "OPENBLAS_CORETYPE": "Haswell",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "OV_CPU_MAX_ISA": "AVX2",  # OpenVINO's own kernels; those that it has of oneDNN obey oneDNN's variable
    },
}
NUMPY = "NPY_DISABLE_CPU_FEATURES"
# All that may hold a library to some kernels. None of it reaches a process that is measured but what is set here.
VARIABLES = (*HELD[AVX2], NUMPY, "OPENBLAS_L2_SIZE", "DNNL_MAX_CPU_ISA")
# What a library's report has in it, in capitals, where it means that set: OpenBLAS names a processor.
WORDS = {
    AVX512: ("AVX512", "AVX-512", "X86_V4", "SKYLAKEX", "COOPERLAKE", "SAPPHIRERAPIDS"),
    AVX2: ("AVX2", "X86_V3", "HASWELL", "ZEN"),
}
VERBOSE = {"oneDNN": r"info,cpu,isa:(.+)", "MKL": r"MKL_VERBOSE .* architecture (.+?) (?:enabled )?processors"}
SILENT = ("MKL",)  # names no set on processors that are not Intel's


def set_of(report):
    """The set that a library's report means: a key of WORDS, or None for none of them."""
    return next((isa for isa, words in WORDS.items() if any(word in report.upper() for word in words)), None)


def environment(isa, features=None):
    """{variable: value, or None where it must not be set} of a process that shall compute with `isa`.

    isa       "avx512", "avx2", or None for what each library chooses by itself
    features  {name: whether it is used} of NumPy's build, by default numpy_features()
    """
    variables = dict.fromkeys(VARIABLES) | HELD.get(isa, {})
    if isa == AVX2:
        features = numpy_features() if features is None else features
        wide = [name for name, used in features.items() if used and set_of(name) == AVX512]
        variables[NUMPY] = " ".join(wide) or None  # it warns of what it was not built for, or the processor lacks
    return variables


@contextlib.contextmanager
def changed(variables):
    """Within it the environment, as a process that is started gets it, has these variables."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables):
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def numpy_features():
    """{name: whether this process uses it} of what NumPy's build asks for at least, and of what it can choose."""
    from numpy._core import _multiarray_umath as core

    return {name: core.__cpu_features__.get(name, False) for name in (*core.__cpu_baseline__, *core.__cpu_dispatch__)}


def numpy_kernels():
    """{part: what it says} of NumPy and its BLAS in this process."""
    from threadpoolctl import threadpool_info

    blas = [x for x in threadpool_info() if x["user_api"] == "blas"]
    names = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}
    said = {names.get(x["internal_api"], x["internal_api"]): x.get("architecture", "unknown") for x in blas}
    used = [name for name, is_used in numpy_features().items() if is_used]
    return said | {"NumPy": used[-1] if used else "unknown"}  # the last is the widest


def named_in(verbose):
    """{part: what it says} of the libraries that name a set in what they print of their work."""
    found = {part: re.search(pattern, verbose) for part, pattern in VERBOSE.items()}
    return {part: match[1].strip() for part, match in found.items() if match}


def require(isa, kernels):
    """UserError unless every library says in `kernels`, {part: what it says}, that it computes with `isa`."""
    wrong = [
        f"{part} says {report!r}" for part, report in kernels.items()
        if set_of(report) != isa and not (part in SILENT and set_of(report) is None)
    ]
    if isa and wrong:
        raise UserError(f"--isa {isa} did not take effect, nothing was timed: {', '.join(wrong)}")


def agreed(kernels):
    """The set that all who name one do; "mixed" if they differ, the machine's architecture if nobody names any."""
    sets = {set_of(report) for report in kernels.values()} - {None}
    return "mixed" if len(sets) > 1 else next(iter(sets), platform.machine().lower())


def told(isa, kernels):
    """The set's name, and each library's word: what stands with every table."""
    return f"{TITLES.get(isa, isa)} ({', '.join(f'{part}: {report}' for part, report in kernels.items())})"
