"""Hostile inputs for every reader: a few always, thousands in the slow tests; and whether the watch sees faults."""

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from . import run
from .child import number_rng
from .mutate import any_text, changed_bytes, hostile_json
from .readers import READERS
from .run import fuzz, line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, links and limits of POSIX")
ROOT = Path(__file__).parents[2]
FEW, MANY = 20, 3000


def python(*arguments):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_few_inputs_of_every_reader(tmp_path):
    done = python("tests.fuzz", "--few", FEW, tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures.keys() == READERS.keys()
    assert {name: found["crashes"] for name, found in figures.items() if found["crashes"]} == {}
    assert sum(found["refused"] for found in figures.values()) > 100 < sum(
        found["accepted"] for found in figures.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_inputs(name):
    figures = fuzz(READERS[name], MANY // 10 if READERS[name].slow else MANY, seed=1)
    print(line(name, figures))
    assert figures["crashes"] == []


SEEN = {
    "raises": "KeyError: ",
    "endless": "more than 0.3 s",
    "greedy": "MB more, 30 is the bound",
    "writes-outside": "Forbidden: ",
    "writes-through-a-link": "Forbidden: ",
    "reads-beside": "Forbidden: ",
    "swallows": "forbidden: os.rename",
    "starts-a-program": "subprocess.Popen",
    "rambles": "a message that is no line",
}


def test_the_watch_sees_every_fault(tmp_path):
    done = python("tests.fuzz.faulty", 1, tmp_path)
    assert done.returncode == 0, done.stderr
    crashes = {name: found["crashes"] for name, found in json.loads(done.stdout).items()}
    assert crashes.keys() == SEEN.keys()
    for name, [[number, told]] in crashes.items():
        assert number == 0 and SEEN[name] in told, name
    assert [path.name for path in tmp_path.glob("*/*") if path.name in "ab"] == []  # nothing was written


def test_a_process_that_dies_is_a_crash(monkeypatch):
    monkeypatch.setattr(run, "_hangs", _killed)
    figures = run._some(READERS["wire"], 0, 7, 8)
    assert figures["done"] == 8 and "the process ended with -9" in figures["crashes"][0][1]


def _killed(process, progress):
    """As run._hangs, of a process that the system ends while it reads the input 7."""
    process.kill()
    process.wait()
    progress.write_bytes(struct.pack("<q", 7))
    return False


def test_an_input_is_decided_by_its_number():
    def made(number):
        rng = number_rng(READERS["json"], 3, number)
        return hostile_json(rng, {"a": [1, {"b": "c"}]}), changed_bytes(rng, b"abcdef" * 9), any_text(rng)

    assert [made(i) for i in range(50)] == [made(i) for i in range(50)]
    assert len({made(i) for i in range(50)}) > 45


def test_what_is_changed_is_a_copy():
    value = {"a": [1, {"b": "c"}], "d": {"e": [None]}}
    before = json.dumps(value)
    for i in range(300):
        hostile_json(random.Random(i), value)
    assert json.dumps(value) == before


def test_a_count_is_kept_and_gone_on_from(tmp_path):
    first = fuzz(READERS["wire"], 30, seed=2, keep=tmp_path)
    again = fuzz(READERS["wire"], 30, seed=2, keep=tmp_path)
    assert first == again and first["done"] == 30
    more = fuzz(READERS["wire"], 40, seed=2, keep=tmp_path)
    assert more["done"] == 40 == more["refused"] + more["accepted"]
    assert line("wire", more).startswith("wire: 40 inputs, ")
