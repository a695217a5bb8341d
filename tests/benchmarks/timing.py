"""One work in two libraries at a time: the same results first, then times in turns; then the memory of each alone."""

import contextlib
import statistics
import tempfile
import time
from typing import NamedTuple

import numpy as np

from .child import Child
from .isa import environment
from .works import FORWARD

LIBRARIES = ("minild", "PyTorch")
TOLERANCE = 1e-3
PAUSE = 0.05  # seconds between turns, for threads that spin to fall asleep
RUNS_FOR_MEMORY = 2


def difference(ours, theirs):
    """The largest difference of any array, relative to the largest number of that array: (difference, name).

    An array a thousandth as large as the largest of all, a bias whose gradient a norm cancels say, is rounding
    alone: it is measured against that thousandth. ValueError where the two do not hold the same arrays.
    """
    if {name: x.shape for name, x in ours.items()} != {name: x.shape for name, x in theirs.items()}:
        raise ValueError("the two libraries gave results of different names or shapes")
    least = 1e-3 * max(abs(x).max() for x in theirs.values())
    apart = {name: float(abs(ours[name] - x).max() / max(abs(x).max(), least)) for name, x in theirs.items()}
    worst = max(apart, key=lambda name: np.nan_to_num(apart[name], nan=np.inf))
    return apart[worst], worst


def summary(seconds):
    """{"minimum", "median", "runs"} of a list of seconds."""
    return {"minimum": min(seconds), "median": statistics.median(seconds), "runs": len(seconds)}


def turns(run, names, repeats, pause=PAUSE):
    """{name: [run(name), ...]}, `repeats` of each in turns, every second time in the opposite order."""
    seconds = {name: [] for name in names}
    for i in range(repeats):
        for name in names if i % 2 == 0 else reversed(names):
            time.sleep(pause)
            seconds[name].append(run(name))
    return seconds


class Where(NamedTuple):
    """Where the libraries compute, "cpu" or "cuda", and with which instruction set: isa.environment's, None for any."""

    device: str = "cpu"
    isa: str | None = None


def start(name, where):
    """The Child of a library, in the environment of its instruction set."""
    return Child(name, where.device, environment=environment(where.isa))


@contextlib.contextmanager
def library(name, where):
    """The same; UserError if it does not compute with that set."""
    with start(name, where) as child:
        child.call("held", where.isa)
        yield child


def survey(where, peers=()):
    """({what: which}, {part: what it says of its instructions}) of all libraries."""
    facts, kernels = {}, {}
    for name in (*LIBRARIES, *peers):
        with start(name, where) as child:
            kernels |= child.call("held", where.isa)
            facts |= child.call("facts")
    return facts, kernels


def gemm_peaks(where):
    """{library: operations a second of a float32 matrix product}."""
    peaks = {}
    for name in LIBRARIES:
        with library(name, where) as child:
            peaks[name] = child.call("gemm_peak")
    return peaks


def write_model(work, where, folder, exported):
    """Write the work's model, its weights random, to the folder; as ONNX, too, if it is to be `exported`."""
    if work.model is None:
        return
    with Child("writer") as child:
        child.call("write", work, folder)
    if exported:
        with start("exporter", where) as child:
            child.call("export", work, folder)


def compare(work, where, repeats=None, way=None, peers=()):
    """Time a work -> what report.py prints and JSON keeps. `way`: minild's, instead of its fastest."""
    peers = peers if work.does in FORWARD else ()
    with tempfile.TemporaryDirectory() as folder:
        write_model(work, where, folder, exported=bool(peers))
        result = {"work": work.key, "title": work.title, "batch": work.batch, "side": work.side}
        result |= duel(work, where, folder, LIBRARIES, repeats, way)
        result["memory"] = {name: memory(name, work, where, folder, way) for name, way in result["ways"].items()}
        result["peers"] = {}
        for peer in peers:
            pair = duel(work, where, folder, ("minild", peer), repeats, result["ways"]["minild"])
            pair["memory"] = {peer: memory(peer, work, where, folder, pair["ways"][peer])}
            result["peers"][peer] = pair
    return result


def duel(work, where, folder, names, repeats=None, way=None):
    """minild and another library in turns -> {"operations", "ways", "seconds"}, seconds as summary() has them."""
    with library(names[0], where) as ours, library(names[1], where) as theirs:
        sides = dict(zip(names, (ours, theirs)))
        ways = {name: child.call("open", work, folder) for name, child in sides.items()}
        if way in ways["minild"]:
            ways["minild"] = [way]
        _require_same(work, sides, ways)
        operations = theirs.call("operations_counted")
        ways = {name: child.call("fastest", ways[name]) for name, child in sides.items()}
        seconds = turns(lambda name: sides[name].call("seconds"), names, repeats or work.repeats)
    return {"operations": operations, "ways": ways, "seconds": {name: summary(seconds[name]) for name in names}}


def _require_same(work, sides, ways):
    for name, child in sides.items():
        child.call("prepare", ways[name][0])
    apart, name = difference(*(child.call("results") for child in sides.values()))
    if not apart <= TOLERANCE:  # nan too
        both = " and ".join(sides)
        raise RuntimeError(f"{work.key}: {both} differ by {apart:.1e} in {name}, nothing was timed")


def memory(name, work, where, folder, way):
    """{"import", "resident", "device"} in bytes at most, of a process that opens the model and does the work."""
    with library(name, where) as child:
        imported = child.call("import_memory")
        child.call("open", work, folder)
        child.call("prepare", way)
        for _ in range(RUNS_FOR_MEMORY):
            child.call("seconds")
        return {"import": imported, **child.call("peak_memory")}
