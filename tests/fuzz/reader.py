"""What a fuzzed reader is: a folder of valid files, hostile ones in their place, and the call that reads them."""

from typing import NamedTuple


class Link(NamedTuple):
    """A symbolic link, in place of a file's bytes."""

    target: str


class Pipe(NamedTuple):
    """A named pipe that nobody writes to, in place of a file's bytes."""


class Reader:
    """A subclass is a reader.

    memory  MB beyond what the process takes once it has read valid files: its stated bound
    fresh   whether every input gets a folder of its own
    slow    whether an input takes tens of milliseconds
    """

    name: str
    memory = 64
    fresh = slow = False

    def files(self, folder):
        """Called once, to write valid files to the folder."""

    def make(self, rng):
        """An input: {path in the folder: bytes, Link, Pipe, or None for no such file}; all others stay valid."""
        raise NotImplementedError

    def read(self, folder):
        """Read them. UserError refuses; whatever else is raised is a crash."""
        raise NotImplementedError
