"""Two hundred kills, torn files and full disks: every restart goes on, nothing that was saved is lost, and the weights
at the end are those of a training that nothing disturbed.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from minild import checkpoints
from minild.checkpoints import STAGES
from minild.pipelines import load

pytest.importorskip("resource")  # which Windows does not have

from training import faults

KILLS = 200
STEPS = 30
WEIGHTS = [f"{part}/diffusion_pytorch_model.safetensors" for part in ("vae", "unet")]
WEIGHTS.append("text_encoder/model.safetensors")


class Trainings:
    """The program of faults.py, and what it is asked for."""

    def __init__(self):
        tests = Path(__file__).parent.parent
        paths = [str(tests), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        program = [sys.executable, str(Path(__file__).with_name("faults.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.program = subprocess.Popen(program, **pipes, text=True, env=environment)

    def run(self, output, kind, **fault):
        """-> the status of one training, and the lines of its stderr."""
        asked = {"output": str(output), "kind": kind, "steps": STEPS, "resume": checkpoints.any_in(output), **fault}
        self.program.stdin.write(json.dumps(asked) + "\n")
        self.program.stdin.flush()
        status = int(self.program.stdout.readline())
        lines = Path(f"{output}.err").read_text().splitlines()
        assert not any("Traceback" in line for line in lines), lines
        return status, [line for line in lines if line.startswith("minild: ")]


@pytest.fixture(scope="module")
def trainings():
    trainings = Trainings()
    with trainings.program:
        yield trainings


def drawn_fault(rng):
    """What is to happen to a training: most often a kill at any time, or between any two calls that write files."""
    what = rng.choice(["seconds", "call", "torn", "largest"], p=[0.4, 0.45, 0.1, 0.05])
    if what == "seconds":
        return {"seconds": float(rng.uniform(0, 1.5))}
    least, most = {"call": (0, 500), "torn": (0, 20), "largest": (20_000, 80_000)}[what]
    return {str(what): int(rng.integers(least, most))}


def reached(output):
    """(stage, steps) of the newest save."""
    saved = checkpoints.newest(output)
    if saved is None:
        return -1, 0
    stage = saved.state["stage"]
    return STAGES.index(stage), saved.state["taken"][stage]


def told(output):
    """What output.log says: (stage, steps) of the last save; digests of the last pipeline that is whole and of those
    begun since; whether there is a whole one.
    """
    log = Path(f"{output}.log")
    words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    saved = [(STAGES.index(line[1]), int(line[2])) for line in words if line[0] == "saved"]
    wrote = [i for i, line in enumerate(words) if line[0] == "wrote"]
    pipelines = [line[1] for line in words[wrote[-1] if wrote else 0 :] if line[0] in ("writes", "wrote")]
    return max(saved, default=(-1, 0)), pipelines, bool(wrote)


def require_nothing_lost(output):
    """The newest save is the last that was made, or one that was in the making; so is the pipeline, all of it."""
    saved, pipelines, was_whole = told(output)
    assert reached(output) >= saved
    assert not was_whole or (output / "model_index.json").exists()
    if (output / "model_index.json").exists():
        assert faults.digest(load(output)) in pipelines


def tear_newest(output, rng):
    """What a disk does to the newest save at a power cut, if it lies about what it has written."""
    file = checkpoints.newest(output).folder / rng.choice([checkpoints.STATE, checkpoints.WEIGHTS])
    content = file.read_bytes()
    half = len(content) // 2
    torn = content[:half], bytes(len(content)), content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    file.write_bytes(torn[rng.integers(3)])
    log = Path(f"{output}.log")
    log.write_text("".join(line for line in log.read_text().splitlines(True) if not line.startswith("saved")))


def lines(output):
    """metrics.jsonl without what the clock says."""
    entries = [json.loads(line) for line in (output / "training" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")} for entry in entries]


def require_same(output, expected):
    for name in WEIGHTS:
        ours, theirs = load_file(output / name), load_file(expected / name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs), name
    ours, theirs = (checkpoints.newest(folder).read_arrays() for folder in (output, expected))
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    assert lines(output) == lines(expected)
    assert not [path for path in output.rglob("*") if "partial" in path.name or "moving" in path.name]


@pytest.mark.slow
def test_two_hundred_kills(trainings, tmp_path, capsys):
    rng, count, ends = np.random.default_rng(11), Counter(), Counter()
    for kind in faults.KINDS:
        assert trainings.run(tmp_path / kind, kind) == (0, [])
    while count["kills"] < KILLS:
        kind = list(faults.KINDS)[count["trainings"] % len(faults.KINDS)]
        output = tmp_path / f"{count['trainings']}"
        count["trainings"] += 1
        status, torn = None, (0, 0)
        while status != 0:
            fault = drawn_fault(rng) if count["kills"] < KILLS else {}
            status, notes = trainings.run(output, kind, **fault)
            count["runs"] += 1
            count["kills"] += status == -9
            ends[next(iter(fault), "nothing"), status] += 1
            assert status in (0, -9) or ("largest" in fault and status == 2), notes
            if status == 2:
                assert f"cannot write to {output}: " in notes[-1] and "File too large" in notes[-1]
                assert " saved in " in notes[-1] or "nothing was saved" in notes[-1]
            require_nothing_lost(output)
            if status == -9 and rng.random() < 0.1 and reached(output) > torn:  # so that there is one before it
                torn = reached(output)
                tear_newest(output, rng)
                assert (-1, 0) < reached(output) < torn
                count["torn"] += 1
        require_same(output, tmp_path / kind)
    with capsys.disabled():
        print(f"\n{dict(count)}; ends: {dict(ends)}")
