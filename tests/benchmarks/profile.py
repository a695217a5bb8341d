"""Where minild's time goes: the operations of minild.ops as the modules above them call them, on one thread."""

import contextlib
import importlib
import pkgutil
import sys
import tempfile
import time
from pathlib import Path
from types import FunctionType

from minild import ops
from minild.nn.layers import Stateless
from minild.nn.module import Parameter
from minild.training.optimizer import AdamW

from .ours import ALONE, Minild
from .works import Writer

RUNS = 3


class Stopwatch:
    """Calls and seconds by name: watch.timed(function, name) is the function, and counts."""

    def __init__(self):
        self.calls, self.seconds = {}, {}

    def timed(self, function, name):
        def watched(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.calls[name] = self.calls.get(name, 0) + 1
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        return watched

    def clear(self):
        self.calls.clear()
        self.seconds.clear()


def operations():
    """Every public function of minild.ops."""
    found = []
    for info in pkgutil.iter_modules(ops.__path__, f"{ops.__name__}."):
        module = importlib.import_module(info.name)
        found += [
            value for name, value in vars(module).items()
            if isinstance(value, FunctionType) and value.__module__ == info.name and not name.startswith("_")
        ]
    return found


def _places(functions):
    """(holder, attribute) wherever minild, but for the ops themselves, holds one of the functions by name."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "minild" or name.startswith(ops.__name__):
            continue
        for attribute, value in list(vars(module).items()):
            for holder, key, held in [(module, attribute, value), *_layers(value)]:
                if isinstance(held, FunctionType) and held in functions:
                    yield holder, key


def _layers(value):
    """The operations of a Stateless layer, or of a table of them, which hold theirs since they were made."""
    for layer in value.values() if isinstance(value, dict) else [value]:
        if isinstance(layer, Stateless):
            yield layer, "op", layer.op
            yield layer, "op_backward", layer.op_backward


@contextlib.contextmanager
def watching(watch):
    """Within it, every operation, AdamW's step and the adding up of gradients are timed by `watch`."""
    functions = set(operations())
    # A layer stands under several names: each place is changed once.
    places = {(id(holder), key): (holder, key) for holder, key in _places(functions)}
    places = [*places.values(), (AdamW, "step"), (Parameter, "accumulate")]
    before = [vars(holder)[key] for holder, key in places]
    for (holder, key), function in zip(places, before):
        setattr(holder, key, watch.timed(function, function.__name__ if function in functions else
                                         function.__qualname__))
    try:
        yield
    finally:
        for (holder, key), function in zip(places, before):
            setattr(holder, key, function)


def measure(work):
    """Profile one run of a work on the CPU -> [(operation, calls, seconds)], and the seconds of all.

    The fastest of RUNS runs, on one thread, so that the parts add up to the whole.
    """
    with tempfile.TemporaryDirectory() as folder:
        Writer().write(work, Path(folder))
        side = Minild("cpu")
        side.open(work, folder)
    side.prepare(ALONE)
    side.run()
    watch, best = Stopwatch(), None
    with watching(watch):
        for _ in range(RUNS):
            watch.clear()
            total = side.seconds()
            if best is None or total < best[1]:
                best = [(name, watch.calls[name], watch.seconds[name]) for name in watch.calls], total
    return best
