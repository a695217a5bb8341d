"""The process that looks on: it starts the one that reads, counts, and starts another where that one died or hung."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AT_ONCE = 1000  # inputs whose figures come at once, at least
PATIENCE = 60  # seconds on the clock after which an input hangs, whatever else the machine does
CLEAN = {"done": 0, "refused": 0, "accepted": 0, "crashes": [], "slowest": 0.0, "slowest_at": 0, "peak": 0.0,
         "seconds": 0.0}  # fmt: skip


def room():
    """Where files are written that nobody keeps: in memory, where the system has a place for that."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def fuzz(reader, inputs, seed=0, keep=None):
    """Read the inputs 0 to `inputs` - 1 of a seed -> their figures, a dict like CLEAN; those kept in a folder count."""
    kept = keep and Path(keep) / f"{reader.name}-{seed}.json"
    figures = json.loads(kept.read_text()) if kept and kept.is_file() else dict(CLEAN, crashes=[])
    several = AT_ONCE
    while figures["done"] < inputs:
        first, began = figures["done"], time.monotonic()
        new = _some(reader, seed, first, min(inputs, first + several))
        taken = time.monotonic() - began
        several = max(AT_ONCE, int(several * min(4, 120 / taken)))  # about two minutes each
        slower = new["slowest"] > figures["slowest"]
        figures |= {
            "done": new["done"],
            "refused": figures["refused"] + new["refused"],
            "accepted": figures["accepted"] + new["accepted"],
            "crashes": figures["crashes"] + new["crashes"],
            "slowest": max(figures["slowest"], new["slowest"]),
            "slowest_at": new["slowest_at"] if slower else figures["slowest_at"],
            "peak": max(figures["peak"], new["peak"]),
            "seconds": figures["seconds"] + new["seconds"],
        }
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            beside = kept.with_suffix(".new")
            beside.write_text(json.dumps(figures))
            beside.replace(kept)
    return figures


def _some(reader, seed, first, last):
    """The figures of some inputs, by a process of their own."""
    base = Path(tempfile.mkdtemp(prefix="minild-fuzz-", dir=room()))
    try:
        progress = base / "progress"
        progress.write_bytes(struct.pack("<q", -1))
        command = [sys.executable, "-m", "tests.fuzz", "--child", reader.name, seed, first, last, base, progress]
        root = Path(__file__).parents[2]
        path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(list(map(str, command)), cwd=root, env=environment, stdout=out, stderr=err)
            hung = _hangs(process, progress)
            out.seek(0)
            err.seek(0)
            if process.returncode == 0:
                return json.loads(out.read())
            at = _reached(progress)
            if at < first:
                raise RuntimeError(f"{reader.name} did not begin: {err.read().decode(errors='replace')[-2000:]}")
            last = err.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
        told = f"no answer in {PATIENCE} s" if hung else f"the process ended with {process.returncode}: {last}"
        before = _some(reader, seed, first, at) if at > first else dict(CLEAN, done=first)  # once more, up to there
        return before | {"done": at + 1, "crashes": [*before["crashes"], [at, told]]}
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _hangs(process, progress):
    """Wait for a process to end -> whether it was ended here, because an input took too long."""
    seen, since = None, time.monotonic()
    while True:
        try:
            process.wait(PATIENCE / 4)
            return False
        except subprocess.TimeoutExpired:
            reached = _reached(progress)
            if reached != seen or reached < 0:
                seen, since = reached, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                process.kill()
                process.wait()
                return True


def _reached(progress):
    return struct.unpack("<q", progress.read_bytes())[0]


def line(name, figures):
    """The figures in a line."""
    speed = figures["done"] / max(1e-9, figures["seconds"])
    return (
        f"{name}: {figures['done']:,} inputs, {figures['refused']:,} refused, {figures['accepted']:,} accepted, "
        f"{len(figures['crashes']):,} crashes; slowest {1000 * figures['slowest']:.0f} ms (input "
        f"{figures['slowest_at']}), at most {figures['peak']:.1f} MB; {speed:,.0f} inputs in a second of processor time"
    )
