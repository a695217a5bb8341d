"""The processes of students' code, forked or started anew: what each of them holds, and how it ends."""

import json
import os
import signal

import pytest

from minild.course import wire
from minild.course.processes import FORKS, StandingBy, Workers

WAYS = [pytest.param(True, marks=pytest.mark.skipif(not FORKS, reason="Linux alone forks")), False]
SIGNATURE = "def add_noise(z, noise, signal_level, noise_level):"


def request(body, seconds=5):
    settings = {"task": "6.2", "seed": 3, "seconds": seconds, "megabytes": 256}
    return json.dumps(settings).encode() + f"\n{SIGNATURE}\n    {body}\n".encode()


@pytest.fixture(params=WAYS, ids=["forked", "started"], scope="module")
def workers(request):
    with Workers(request.param) as workers:
        yield workers


def test_a_worker_answers(workers):
    answer = workers.ask(request("return signal_level * z + noise_level * noise"), 60)
    outcome, _, arrays = wire.unpack(answer.message)
    assert outcome == "values" and arrays["0:out:z_t"].shape == (3, 4, 5, 2)
    assert (answer.late, answer.status) == (False, 0)


def test_how_it_ended_is_told(workers):
    assert workers.ask(request("import os; os._exit(3)"), 60)[1:] == (False, 3)
    late = workers.ask(request("import time; time.sleep(60)"), 0.5)
    assert late.late and late.status == -signal.SIGKILL
    assert workers.ask(request("return z"), 60).status == 0  # and the next is served


def test_it_holds_nothing_of_others(workers, monkeypatch):
    monkeypatch.setenv("A_SECRET", "x")
    source = "import os; raise ValueError(sorted(os.environ), [os.fstat(i) and i for i in range(5)])"
    text = wire.unpack(workers.ask(request(source), 60).message)[1]
    assert "OMP_NUM_THREADS" in text and "A_SECRET" not in text and "[0, 1, 2, 3, 4]" in text
    assert "Bad file descriptor" in wire.unpack(workers.ask(request("import os; os.fstat(5)"), 60).message)[1]


@pytest.mark.skipif(not FORKS, reason="Linux alone forks")
def test_one_that_stands_by_and_has_ended_is_replaced():
    with Workers() as workers:
        workers.ask(request("return z"), 60)
        gone = workers.standing_by.get_nowait()
        os.kill(gone.process.pid, signal.SIGKILL)
        gone.process.wait()
        workers.standing_by.put(gone)
        assert workers.ask(request("return z"), 60).status == 0
        [process] = [workers.standing_by.get_nowait()]
        workers.standing_by.put(process)
    assert process.process.poll() is not None  # the context has ended it


@pytest.mark.skipif(not FORKS, reason="Linux alone forks")
def test_one_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr("minild.course.processes.BOOT", "raise SystemExit")
    with pytest.raises(ConnectionError, match="could be started"):
        StandingBy()
