"""minild.engine.cores: pieces on all cores, forks, and what holds in a worker."""

import contextvars
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minild.engine import cores


@pytest.mark.parametrize("alone", [False, True])
def test_pieces_run_on_all_cores_or_in_a_worker_one_by_one(alone):
    threads, done = set(), np.zeros(40, int)

    def work(i):
        threads.add(threading.get_ident())
        done[i] += 1
        time.sleep(0.002)  # long enough for every core to take one

    if alone:
        with cores.WorkerThreads(1) as pool:
            pool.submit(cores.on_all_cores, work, range(40)).result()
    else:
        cores.on_all_cores(work, range(40))
    assert (done == 1).all()
    assert len(threads) == (1 if alone else cores.core_count())


def test_what_a_piece_raises_is_raised():
    def work(i):
        if i == 3:
            raise ValueError("piece 3")

    with pytest.raises(ValueError, match="piece 3"):
        cores.on_all_cores(work, range(5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_cores_of_its_own():
    program = """
import os
from minild.engine.cores import on_all_cores
on_all_cores(lambda i: None, range(4))
child = os.fork()
if child == 0:
    on_all_cores(lambda i: None, range(4))
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_blas_has_its_threads_back_after_two_users_at_once():
    """Once each restored what it had found, and what the second found was the first one's 1."""
    program = """
import threading, time
from threadpoolctl import threadpool_info
from minild.engine import cores

first_is_in = threading.Event()

def work(delay, wait):
    first_is_in.wait(10) if wait else None
    with cores.blas_threads(1):
        first_is_in.set()
        time.sleep(delay)

def now():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

before = now()
threads = [threading.Thread(target=work, args=a) for a in ((0.1, False), (0.3, True))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(before == now())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_what_holds_where_work_is_handed_out_holds_for_the_work():
    word = contextvars.ContextVar("word", default="outside")
    with cores.WorkerThreads(2) as pool:
        pool.submit(word.get).result()  # the thread was there before
        word.set("inside")
        assert list(pool.map(lambda _: word.get(), range(3))) == ["inside"] * 3
        assert pool.submit(word.get).result() == "inside"
