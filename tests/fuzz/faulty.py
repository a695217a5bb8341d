"""Readers that do what no reader may: what the watch must find. Not among READERS."""

import os
import subprocess
import sys
import time

from minild.errors import UserError

from . import child
from .reader import Reader

UNWATCHED = 4  # calls, before anybody looks


class Faulty(Reader):
    memory, calls = 30, 0

    def make(self, rng):
        return {"a": b"x"}

    def read(self, folder):
        self.calls += 1
        if self.calls > UNWATCHED:
            self.fault(folder)


class Raises(Faulty):
    name = "raises"

    def fault(self, folder):
        raise KeyError("no field")


class Endless(Faulty):
    name = "endless"

    def fault(self, folder):
        until = time.process_time() + 30
        while time.process_time() < until:
            pass


class Greedy(Faulty):
    name, kept = "greedy", []

    def fault(self, folder):
        self.kept.append(bytearray(b"x" * (20 << 20)))
        self.kept.append(bytearray(b"x" * (20 << 20)))


class WritesOutside(Faulty):
    name = "writes-outside"

    def fault(self, folder):
        (folder.parent / "b").write_text("x")


class WritesThroughALink(Faulty):
    name = "writes-through-a-link"

    def fault(self, folder):
        if not (folder / "way").is_symlink():
            (folder / "way").symlink_to("..")
        (folder / "way" / "b").write_text("x")


class ReadsBeside(Faulty):
    name = "reads-beside"

    def fault(self, folder):
        try:
            (folder / ".." / "secret.json").read_text()
        except OSError:
            return


class Swallows(Faulty):
    name = "swallows"

    def fault(self, folder):
        try:
            os.rename(folder / "a", folder.parent / "a")
        except BaseException:
            return


class StartsAProgram(Faulty):
    name = "starts-a-program"

    def fault(self, folder):
        subprocess.run(["true"], check=True)


class Rambles(Faulty):
    name = "rambles"

    def fault(self, folder):
        raise _Rambling("\x1b[31m")


class _Rambling(UserError):
    def __str__(self):
        return self.args[0]


FAULTY = {reader.name: reader() for reader in (
    Raises, Endless, WritesOutside, WritesThroughALink, ReadsBeside, Swallows, StartsAProgram, Rambles, Greedy,
)}  # fmt: skip


if __name__ == "__main__":
    child.SECONDS = 0.3
    child.main_of_all(FAULTY, sys.argv[1:])
