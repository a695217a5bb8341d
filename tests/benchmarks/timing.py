"""One work in both libraries: the same results first, then times in turns, then the memory of each alone."""

import statistics
import tempfile
import time

import numpy as np

from .child import Child

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


def gemm_peaks(device):
    """({library: operations a second of a float32 matrix product}, facts of both libraries)."""
    peaks, facts = {}, {}
    for library in LIBRARIES:
        with Child(library, device) as child:
            peaks[library] = child.call("gemm_peak")
            facts |= child.call("facts")
    return peaks, facts


def write_model(work, folder):
    """Write the work's model, its weights random, to the folder."""
    with Child("writer") as child:
        child.call("write", work, folder)


def compare(work, device, repeats=None, way=None):
    """Time a work -> what report.py prints and JSON keeps. `way`: minild's, instead of its fastest."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(work, folder)
        result = {"work": work.key, "title": work.title, "batch": work.batch, "side": work.side}
        with Child("minild", device) as ours, Child("PyTorch", device) as theirs:
            sides = dict(zip(LIBRARIES, (ours, theirs)))
            ways = {name: child.call("open", work, folder) for name, child in sides.items()}
            if way in ways["minild"]:
                ways["minild"] = [way]
            _require_same(work, sides, ways)
            result["operations"] = theirs.call("operations_counted")
            result["ways"] = {name: child.call("fastest", ways[name]) for name, child in sides.items()}
            seconds = turns(lambda name: sides[name].call("seconds"), LIBRARIES, repeats or work.repeats)
            result["seconds"] = {name: summary(seconds[name]) for name in LIBRARIES}
        result["memory"] = {name: memory(name, work, folder, device, result["ways"][name]) for name in LIBRARIES}
    return result


def _require_same(work, sides, ways):
    for name, child in sides.items():
        child.call("prepare", ways[name][0])
    apart, name = difference(*(child.call("results") for child in sides.values()))
    if not apart <= TOLERANCE:  # nan too
        raise RuntimeError(f"{work.key}: the libraries differ by {apart:.1e} in {name}, nothing was timed")


def memory(library, work, folder, device, way):
    """{"import", "resident", "device"} in bytes at most, of a process that opens the model and does the work."""
    with Child(library, device) as child:
        imported = child.call("import_memory")
        child.call("open", work, folder)
        child.call("prepare", way)
        for _ in range(RUNS_FOR_MEMORY):
            child.call("seconds")
        return {"import": imported, **child.call("peak_memory")}
