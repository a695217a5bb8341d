"""Locks between processes: a file that one process at a time can have, until it ends, however it ends."""

import contextlib
import errno
import os

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

    The file is made, and stays: to remove one that another process may be opening would part the two. OSError where
    it cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(handle)
    try:
        yield _lock(handle)
    finally:
        _held.discard(handle)
        os.close(handle)  # which unlocks it


def _lock(handle):
    """Whether nobody else has it. What can be imported depends on the system."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno not in UNKNOWN:
            raise
    return True
