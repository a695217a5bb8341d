"""All cores of the host: an operation's pieces, pictures, or parts of a batch, side by side.

NumPy lets go of Python's lock within an operation, so threads truly compute at once. While they do, BLAS has one thread
in each: its own threads would only stand in each other's way.
"""

import contextlib
import contextvars
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

_thread = threading.local()  # .works_alone: it is one of several that share the cores
_sharing = 1  # processes that share the cores


def own_cores():
    """The numbers of the processor cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def core_count():
    """The processor cores that this process may use."""
    return max(1, len(own_cores()) // _sharing)


def share_cores(processes):
    """Leave the cores of this process to so many, itself among them: core_count() is its part, and BLAS has no more
    threads. To be said once, before any work.
    """
    global _sharing
    _sharing = processes
    for library in _blas().lib_controllers:
        if library.user_api == "blas":
            library.set_num_threads(min(core_count(), library.get_num_threads()))


@functools.cache
def _blas():
    return ThreadpoolController()  # found once: looking for the libraries takes longer than many an operation


_limits, _lock = [], threading.Lock()  # the users of blas_threads: the first sets the number, the last restores it


@contextlib.contextmanager
def blas_threads(count):
    """Within it BLAS uses `count` threads (1 where several threads compute side by side).

    The number is the whole process's: while one thread is within, the `count` of others changes nothing.
    """
    with _lock:
        _limits.append(_limits[0] if _limits else _blas().limit(limits=count, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _limits.pop()
            if not _limits:
                limit.restore_original_limits()


def _join_the_cores():
    _thread.works_alone = True


class WorkerThreads(ThreadPoolExecutor):
    """Threads that share the cores: none of them spreads its work over the others.

    What holds by `with` where the work is handed out (`using`, `inference`) holds for the work, too.
    """

    def __init__(self, count):
        super().__init__(count, initializer=_join_the_cores)

    def submit(self, function, /, *arguments, **settings):
        return super().submit(contextvars.copy_context().run, function, *arguments, **settings)


@contextlib.contextmanager
def side_by_side():
    """A map() for work on host arrays that runs on all cores at once, BLAS on one thread in each."""
    with blas_threads(1), WorkerThreads(core_count()) as pool:
        yield pool.map


@functools.cache
def _all_cores():
    return WorkerThreads(core_count())


if hasattr(os, "register_at_fork"):
    # In a child the threads are gone, and a lock that one of them held would stay locked.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_all_cores.cache_clear)


def on_all_cores(function, pieces):
    """Call function(piece) for every piece, on all cores at once; one after the other in a thread that works alone.

    For the pieces of one large operation on host arrays. `function` writes its result where it belongs.
    """
    if len(pieces) < 2 or core_count() == 1 or getattr(_thread, "works_alone", False):
        for piece in pieces:
            function(piece)
        return
    with blas_threads(1):
        for _ in _all_cores().map(function, pieces):
            pass  # the results are None; to ask for them raises what a piece raised
