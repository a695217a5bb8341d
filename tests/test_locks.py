"""A lock by whatever the system has: POSIX's, Windows's, or none."""

import errno
import os
import types

import pytest

from minild import locks


class Msvcrt(types.ModuleType):
    """Windows's locks, as far as they are used: one of a file at a time, taken back when its handle is closed."""

    LK_NBLCK = 2

    def __init__(self):
        super().__init__("msvcrt")
        self.owners = {}

    def locking(self, handle, mode, count):
        assert (mode, count) == (self.LK_NBLCK, 1)
        owner = self.owners.setdefault(os.fstat(handle).st_ino, handle)
        if owner != handle:
            raise OSError(errno.EACCES, "Permission denied")

    def closed(self, handle):
        self.owners = {file: owner for file, owner in self.owners.items() if owner != handle}


@pytest.fixture(params=["own", "windows"])
def system(request, monkeypatch):
    if request.param == "windows":
        stand_in, close = Msvcrt(), os.close
        monkeypatch.setattr(locks, "fcntl", None)
        monkeypatch.setattr(locks, "msvcrt", stand_in)
        monkeypatch.setattr(os, "close", lambda handle: (stand_in.closed(handle), close(handle)))


def test_one_at_a_time_has_it(tmp_path, system):
    with locks.lock(tmp_path / "lock") as first:
        with locks.lock(tmp_path / "lock") as second, locks.lock(tmp_path / "other") as other:
            assert (first, second, other) == (True, False, True)
        with locks.lock(tmp_path / "lock") as third:
            assert not third
    with locks.lock(tmp_path / "lock") as again:
        assert again


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", None)
    with locks.lock(tmp_path / "lock") as first, locks.lock(tmp_path / "lock") as second:
        assert first and second


@pytest.mark.parametrize(("number", "alone"), [(errno.ENOLCK, True), (errno.EOPNOTSUPP, True), (errno.EIO, None)])
def test_a_file_system_without_locks_and_one_that_is_broken(tmp_path, monkeypatch, number, alone):
    def fail(*arguments):
        raise OSError(number, "no")

    stand_in = types.SimpleNamespace(flock=fail, LOCK_EX=2, LOCK_NB=4)
    monkeypatch.setattr(locks, "fcntl", stand_in)
    if alone is None:
        with pytest.raises(OSError, match="no"), locks.lock(tmp_path / "lock"):
            pass
    else:
        with locks.lock(tmp_path / "lock") as got:
            assert got is alone
