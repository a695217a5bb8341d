"""Readers that do what no reader may: what the watch must find. Not among READERS."""

import os
import subprocess
import time

from minild.errors import UserError

from .child import main
from .reader import Reader


class Faulty(Reader):
    memory = 30

    def make(self, rng):
        return {"a": b"x"}


class Raises(Faulty):
    name = "raises"

    def read(self, folder):
        raise KeyError("no field")


class Endless(Faulty):
    name = "endless"

    def read(self, folder):
        until = time.process_time() + 30
        while time.process_time() < until:
            pass


class Greedy(Faulty):
    name, kept = "greedy", []

    def read(self, folder):
        self.kept.append(bytearray(b"x" * (20 << 20)))
        self.kept.append(bytearray(b"x" * (20 << 20)))


class WritesOutside(Faulty):
    name = "writes-outside"

    def read(self, folder):
        (folder.parent / "b").write_text("x")


class WritesThroughALink(Faulty):
    name = "writes-through-a-link"

    def read(self, folder):
        if not (folder / "way").is_symlink():
            (folder / "way").symlink_to("..")
        (folder / "way" / "b").write_text("x")


class ReadsBeside(Faulty):
    name = "reads-beside"

    def read(self, folder):
        try:
            (folder / ".." / "secret.json").read_text()
        except OSError:
            return


class Swallows(Faulty):
    name = "swallows"

    def read(self, folder):
        try:
            os.rename(folder / "a", folder.parent / "a")
        except BaseException:
            return


class StartsAProgram(Faulty):
    name = "starts-a-program"

    def read(self, folder):
        subprocess.run(["true"], check=True)


class Rambles(Faulty):
    name = "rambles"

    def read(self, folder):
        raise _Rambling("\x1b[31m")


class _Rambling(UserError):
    def __str__(self):
        return self.args[0]


class Dies(Faulty):
    name = "dies"

    def read(self, folder):
        os._exit(9)


FAULTY = {reader.name: reader() for reader in (
    Raises, Endless, Greedy, WritesOutside, WritesThroughALink, ReadsBeside, Swallows, StartsAProgram, Rambles, Dies,
)}  # fmt: skip


if __name__ == "__main__":
    import sys

    main(FAULTY, sys.argv[1:])
