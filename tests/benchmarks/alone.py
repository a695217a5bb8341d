"""Whole commands `minild`, each a process that nobody else is beside: from its start until its work is done."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minild import pretrained
from minild.errors import UserError

from . import isa, timing
from .works import EVALUATED

DONE = "done.json"
ROOT = Path(__file__).parents[2]


def measure(command, where, repeats=None):
    """Run a works.Command -> what report.py prints and JSON keeps. UserError if it leaves less than it must."""
    seconds, found = [], {}
    for _ in range(repeats or command.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(run(command.arguments, where, folder))
            figures = Path(folder) / "figures.json"
            if command.follows:
                run(("evaluate", "{folder}/pipeline", *EVALUATED), where, folder)
            if figures.is_file():
                found = {name: pretrained.read_json(figures)[name] for name in ("all", "drawn")}
    if command.follows and found["all"] < command.follows:
        what = f"{found['all']:.1%} of the captions followed, {command.follows:.0%} expected"
        raise UserError(f"{command.key}: {what}: no time of such a training is told")
    return {"work": command.key, "title": command.title, "seconds": {"minild": timing.summary(seconds)}, "found": found}


def run(arguments, where, folder):
    """Seconds that a command `minild` takes; {folder} and {device} in its arguments are those."""
    done = Path(folder) / DONE
    program = [sys.executable, "-m", "tests.benchmarks.cli", str(where.isa), str(done)]
    arguments = [argument.format(folder=folder, device=where.device) for argument in arguments]
    with isa.changed(isa.environment(where.isa)):
        started = time.time()
        process = subprocess.run([*program, *arguments], cwd=ROOT, capture_output=True, text=True)
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        raise UserError(f"minild {' '.join(arguments)}: {last[0]}")
    return pretrained.read_json(done)["time"] - started
