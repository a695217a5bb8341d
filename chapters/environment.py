"""What the first cell of every chapter asks: is all there that the chapter needs? In one line, if not.

It also sees to it that a cell which is run before those that it builds on says so, in one line.
"""

import importlib.util
import re
import sys
import traceback

NEEDED = {  # module -> what pip calls it
    "numpy": "numpy",
    "PIL": "pillow",
    "tqdm": "tqdm",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "minild": "minild",
    "matplotlib": "matplotlib",
}
NUMPY = "2.0"  # and newer, as pyproject.toml has it
INSTALL = 'pip install -e ".[notebooks]" in the folder above this one'


class NotReady(Exception):
    """Shown by Jupyter as its message alone: a reader who lacks a package needs no traceback."""

    def _render_traceback_(self):
        return [str(self)]


def check():
    """Say what this machine has; NotReady, in one line, where something is missing or too old."""
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise NotReady(f"not installed in this kernel: {', '.join(missing)}. Run {INSTALL}, and restart the kernel")

    import numpy

    if _number(numpy.__version__) < _number(NUMPY):
        advice = f'Run pip install "numpy>={NUMPY}", and restart the kernel'
        raise NotReady(f"NumPy {numpy.__version__} is too old: the chapters need {NUMPY} or newer. {advice}")

    import minild
    from minild.engine.cores import core_count

    _explain_undefined_names()
    print(f"Ready: minild {minild.__version__}, NumPy {numpy.__version__}, {core_count()} cores, {_gpu()}.")


def _number(version):
    """(major, minor) of a version such as "2.1.0rc1"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _gpu():
    if importlib.util.find_spec("cupy") is None:
        return "no CuPy"
    try:
        import cupy
    except ImportError:
        return "a CuPy that cannot be imported"
    return f"CuPy {cupy.__version__} with {'a' if cupy.cuda.is_available() else 'no'} GPU"


def _explain_undefined_names():
    """From now on, a name that a cell asks for in vain is told in one line, with what to do."""
    ipython = sys.modules.get("IPython")  # it is not there, or has no shell, where a test calls check
    if ipython and (shell := ipython.get_ipython()):
        shell.set_custom_exc((NameError,), show_undefined)


def show_undefined(shell, kind, error, tb, tb_offset=None):
    """How `shell` shows a NameError: in one line where a cell itself asked, with a traceback where a function did."""
    last = traceback.extract_tb(tb)[-1]
    if last.name == "<module>" and error.name:
        lines = [f"line {last.lineno}: the name {error.name!r} is not defined. An earlier cell makes it, or it is "
                 "misspelt: run the cells from the top, or Run > Run All Above Selected Cell"]  # fmt: skip
    else:
        lines = shell.InteractiveTB.structured_traceback(kind, error, tb, tb_offset=tb_offset)
    shell._showtraceback(kind, error, lines)  # IPython leaves the showing to who asks for it by set_custom_exc
    return lines
