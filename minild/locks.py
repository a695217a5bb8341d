"""Locks between processes: a file that one process at a time can have, until it ends, however it ends."""

import contextlib
import errno
import os

try:
    import fcntl  # of POSIX
except ImportError:
    fcntl = None
try:
    import msvcrt  # of Windows
except ImportError:
    msvcrt = None

TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # to a file system that has no locks

_held = set()  # file descriptors


def _let_go():
    """In a forked process: it would keep the lock after ours has been killed."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def lock(path):
    """with lock(path) as alone: whether no other process has the lock of that file; this one then has it to the end.

    The file is made, and stays: to remove one that another process may be opening would part the two. OSError where it
    cannot be made. Where Python has no locks, as in WebAssembly, there is no other process; there, and on a file
    system without locks, all are alone: a file that only its owner removes would lock everybody out after a kill.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(handle)
    try:
        yield _lock(handle)
    finally:
        _held.discard(handle)
        os.close(handle)  # which unlocks it


def _lock(handle):
    """Whether nobody else has it."""
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno not in UNKNOWN:
            raise
    return True
