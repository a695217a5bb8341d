"""Where minild's time goes: each op as layers call it through the engine's table, on one thread."""

import contextlib
import tempfile
import time
from pathlib import Path

from minild.engine.table import OPS
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


def _timed(op, name, watch):
    """A row of the engine's table, every implementation of it timed: forward under the op's name, and backward."""
    def pair(implementation):
        changes = {
            "op": watch.timed(implementation.op, name),
            "op_backward": watch.timed(implementation.op_backward, f"{name}_backward"),
        }
        if getattr(implementation, "inference", None):
            changes["inference"] = watch.timed(implementation.inference, name)
        return implementation._replace(**changes)

    return pair(op)._replace(fast=tuple(map(pair, op.fast)))


@contextlib.contextmanager
def watching(watch):
    """Within it, every op that a layer calls, AdamW's step and the adding up of gradients are timed by `watch`."""
    rows, methods = dict(OPS), [(AdamW, "step"), (Parameter, "accumulate")]
    before = [vars(holder)[name] for holder, name in methods]
    OPS.update({name: _timed(op, name, watch) for name, op in rows.items()})
    for (holder, name), function in zip(methods, before):
        setattr(holder, name, watch.timed(function, function.__qualname__))
    try:
        yield
    finally:
        OPS.update(rows)
        for (holder, name), function in zip(methods, before):
            setattr(holder, name, function)


class Profiler(Minild):
    """minild's side, which is watched."""

    def profile(self, work):
        """Profile one run of a work on the CPU -> [(operation, calls, seconds)], and the seconds of all.

        The fastest of RUNS runs, on one thread, so that the parts add up to the whole.
        """
        with tempfile.TemporaryDirectory() as folder:
            if work.model:
                Writer().write(work, Path(folder))
            self.open(work, folder)
        self.prepare(ALONE)
        self.run()
        watch, best = Stopwatch(), None
        with watching(watch):
            for _ in range(RUNS):
                watch.clear()
                total = self.seconds()
                if best is None or total < best[1]:
                    best = [(name, watch.calls[name], watch.seconds[name]) for name in watch.calls], total
        return best
