"""Processes that mpiexec starts to work as one: which of them this is, and how they end together."""

import contextlib
import io
import os
import sys
import time
import traceback

from minild.errors import UserError

PLACES = (("PMI_RANK", "PMI_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))  # of MPICH and its kin; Open MPI
FIRST_WAITS, OTHERS_WAIT = 1.0, 10.0  # seconds for all to come to an end, before it is forced

_joined = []  # the communicator of all processes, and its twin, on which they only meet to end


def place():
    """(rank, size) as mpiexec has told them to this process; (0, 1) where no mpiexec started it."""
    for rank, size in PLACES:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def join():
    """-> mpi4py's communicator of all processes. UserError where there is no MPI to reach them by."""
    if not _joined:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError):  # no mpi4py, or no MPI library that it can load
            raise UserError("mpiexec started several processes, but there is no mpi4py for them to talk by: "
                            "pip install mpi4py mpich") from None
        size = place()[1]
        if MPI.COMM_WORLD.size != size:
            raise UserError(f"mpiexec started {size} processes, and the MPI of mpi4py knows of {MPI.COMM_WORLD.size}: "
                            "use the mpiexec that belongs to that MPI")
        _joined[:] = [MPI.COMM_WORLD, MPI.COMM_WORLD.Dup()]
    return _joined[0]


def together(run):
    """run() -> its exit status, in each of the processes that mpiexec started.

    The first process speaks for all; what the others say is held back. Where all of them end with an error, that is
    all. Where one ends alone, the others would wait for it for ever: so it says what it held back, and ends them all.
    """
    rank, size = place()
    if size == 1:
        return run()
    held = io.StringIO()
    with contextlib.ExitStack() as stack:
        if rank:
            stack.enter_context(contextlib.redirect_stderr(held))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            status = run()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
    if status and not _all_end(rank):
        if rank:
            print(f"\n{held.getvalue()}", end="", file=sys.stderr, flush=True)  # below the first one's progress bar
        _abort(status)
    return status


def _all_end(rank):
    """Whether all processes come to an end with this one. Where they cannot meet, for want of MPI, each ends alone."""
    try:
        join()  # where the error came before: it may be one of all, a wrong option, say, or of this process alone
    except UserError:
        return True
    until = time.monotonic() + (OTHERS_WAIT if rank else FIRST_WAITS)
    meeting = _joined[1].Ibarrier()
    while not meeting.Test():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _abort(status):
    """End all processes, with that status. MPI's own words on it would be a second line."""
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _joined[0].Abort(status)
