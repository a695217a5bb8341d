"""What the first cell of every chapter asks: is all there that the chapter needs? In one line, if not."""

import importlib.util

NEEDED = {"numpy": "numpy", "minild": "minild", "matplotlib": "matplotlib"}  # module -> what pip calls it
INSTALL = 'pip install -e ".[notebooks]" in the folder above this one'


class NotReady(Exception):
    """Shown by Jupyter as its message alone: a reader who lacks a package needs no traceback."""

    def _render_traceback_(self):
        return [str(self)]


def check():
    """Say what this machine has; NotReady, in one line, where something is missing."""
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise NotReady(f"not installed in this kernel: {', '.join(missing)}. Run {INSTALL}")

    import numpy

    import minild
    from minild.engine.cores import core_count

    print(f"Ready: minild {minild.__version__}, NumPy {numpy.__version__}, {core_count()} cores, {_gpu()}.")


def _gpu():
    if importlib.util.find_spec("cupy") is None:
        return "no CuPy"
    import cupy

    return f"CuPy {cupy.__version__} with {'a' if cupy.cuda.is_available() else 'no'} GPU"
