"""One training at a time in a folder: a lock that the system takes back when its process ends, however it ends."""

import contextlib
import errno
import os
from pathlib import Path

from minild.checkpoints import FOLDER
from minild.errors import UserError

LOCK = "lock"  # the file; it stays, for to remove one that another process may be opening would part the two
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
def only_training(output, folder=None):
    """with only_training(output): while it lasts, no other training gets here. UserError where one has, and where there
    can be no lock in `folder`, DIR/training if none is named, which is made.
    """
    folder = Path(output) / FOLDER if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}") from None
    _held.add(handle)
    try:
        if not _lock(handle):
            words = "wait until it ends, or name another folder"
            raise UserError(f"another training is at work in {output}: {words}")
        yield
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
