"""The process that reads: many inputs, one after the other, each watched."""

import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

from minild.errors import UserError
from minild.shown import shown

from .reader import Link, Pipe

SECONDS = 2.0  # of processor time that an input may take
ADDRESS_SPACE = 6 << 30  # bytes, so that no input takes the machine down
SHOWN = 300  # characters of a crash
WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
          "os.chown", "shutil.rmtree", "shutil.move", "shutil.copyfile"}  # fmt: skip
NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn",
         "socket.connect", "socket.getaddrinfo", "pickle.find_class", "webbrowser.open", "urllib.Request"}  # fmt: skip


class Forbidden(BaseException):
    """What no reader may do; not an Exception, so that nobody swallows it."""


class TooLong(BaseException):
    """An input has had its time."""


class Watch:
    """Notes what is done within `folder` and outside, while it is `on`. `base` is the folder that holds it."""

    def __init__(self, folder):
        self.folder, self.base = os.path.realpath(folder), os.path.realpath(folder.parent)
        self.on, self.seen = False, None
        sys.addaudithook(self._note)

    def _note(self, event, arguments):
        if not self.on:
            return
        if event in NEVER:
            self._forbid(f"{event} {arguments!r}")
        elif event in WRITES:
            for path in arguments[:2]:
                if isinstance(path, (str, bytes, os.PathLike)) and not self._inside(path):
                    self._forbid(f"{event} {path!r}")
        elif event == "open":
            path, mode, flags = arguments
            if not isinstance(path, (str, bytes, os.PathLike)):
                return
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else False
            if self._beside(path) or (writes and not self._inside(path)):
                self._forbid(f"open {path!r} {mode} {flags}")

    def _forbid(self, what):
        self.seen = what
        if threading.current_thread() is threading.main_thread():
            raise Forbidden(what)
        raise PermissionError(what)  # a thread that ended would be waited for

    def _inside(self, path):
        return self._real(path).startswith((self.folder + os.sep, os.devnull)) or self._real(path) == self.folder

    def _beside(self, path):
        """Whether a name leads to what lies beside the folder. A link in the folder may: links are followed."""
        named = os.path.abspath(os.fsdecode(path))
        return named.startswith(self.base + os.sep) and not (named + os.sep).startswith(self.folder + os.sep)

    def _real(self, path):
        try:
            return os.path.realpath(os.fsdecode(path))
        except ValueError:
            return self.folder + os.sep  # a NUL: no such file can be


def number_rng(reader, seed, number):
    """The random.Random of an input."""
    return random.Random(f"{reader.name}/{seed}/{number}")


class Place:
    """The folder of a reader's files, into which inputs are put."""

    def __init__(self, reader, folder):
        self.reader, self.folder, self.changed = reader, folder, set()
        self.begin()
        self.valid = {}
        if not reader.fresh:
            files = [path for path in folder.rglob("*") if path.is_file()]
            self.valid = {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def begin(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.reader.files(self.folder)

    def put(self, files):
        """Write an input's files; those of the input before are valid again."""
        if self.reader.fresh:
            self.begin()
        for name in self.changed - files.keys():
            self._write(name, self.valid.get(name))
        for name, data in files.items():
            self._write(name, data)
        self.changed = set(files)

    def _write(self, name, data):
        path = os.path.join(self.folder, name)
        if isinstance(data, bytes):
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:  # something else lies there, or no folder
                _remove(path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(handle, data)
            os.close(handle)
            return
        _remove(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(data, Link):
            os.symlink(data.target, path)
        elif isinstance(data, Pipe):
            os.mkfifo(path)


def _remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _peak():
    """MB that the process has taken at most. On Linux, ru_maxrss would count what its parent took."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _too_long(*_):
    raise TooLong


def run(reader, seed, first, last, base, progress, again=False, warm=50):
    """Read the inputs `first` to `last` - 1 in base/files -> a dict of figures. Too much memory ends it early.

    progress: a file to which the number of the input in hand is written, for whoever looks on.
    again: crashes raise, rather than being counted. warm: inputs that come before, of which nothing is counted.
    """
    warnings.simplefilter("ignore")
    started = time.process_time()
    place = Place(reader, Path(base) / "files")
    for name in ("secret.json", "secret.safetensors", "secret.png"):  # what no input may have read
        (Path(base) / name).write_bytes(b"{}")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGPROF, _too_long)
    figures = {"done": first, "refused": 0, "accepted": 0, "crashes": [], "slowest": 0.0, "slowest_at": first}
    with open(os.devnull, "w") as nowhere:
        sys.stderr, stderr = nowhere, sys.stderr
        place.put({})
        for _ in range(2):  # what is imported and kept for ever is no input's doing
            _attempt(reader, place.folder)
        for number in range(-warm, 0):
            place.put(reader.make(number_rng(reader, seed, number)))
            _attempt(reader, place.folder)
        watch, before, figures["peak"] = Watch(place.folder), _peak(), 0.0
        handle = os.open(progress, os.O_WRONLY)
        for number in range(first, last):
            os.pwrite(handle, struct.pack("<q", number), 0)
            place.put(reader.make(number_rng(reader, seed, number)))
            watch.on, watch.seen, crash, began = True, None, None, time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                reader.read(place.folder)
                figures["accepted"] += 1
            except UserError as error:
                if len(str(error)) > 5000 or shown(error) != str(error):
                    crash = f"a message that is no line: {str(error)[:100]!a}"
                figures["refused"] += 1
            except TooLong:
                crash = f"more than {SECONDS:g} s: {_where(sys.exc_info()[2])}"
            except BaseException as error:
                if again:
                    sys.stderr = stderr
                    raise
                crash = f"{type(error).__name__}: {str(error)[:100]!a}, {_where(error.__traceback__)}"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                watch.on = False
            taken = time.process_time() - began
            if taken > figures["slowest"]:
                figures["slowest"], figures["slowest_at"] = taken, number
            more = max(0, _peak() - before)
            figures["peak"] = max(figures["peak"], more)
            figures["done"] = number + 1
            crash = crash or (f"forbidden: {watch.seen}" if watch.seen else None)
            crash = crash or (f"{taken:.1f} s" if taken > SECONDS else None)
            crash = crash or (f"{more:.0f} MB more, {reader.memory} is the bound" if more > reader.memory else None)
            if crash:
                figures["crashes"].append([number, crash[:SHOWN]])
                if again:
                    sys.stderr = stderr
                    raise AssertionError(crash)
            if more > reader.memory:
                break  # nothing more can be told of memory here
        watch.on = False
        os.close(handle)
        sys.stderr = stderr
    return figures | {"seconds": time.process_time() - started}


def _attempt(reader, folder):
    try:
        reader.read(folder)
    except Exception:
        return


def _where(trace):
    """The last places within minild, of a traceback."""
    frames = [frame for frame in traceback.extract_tb(trace) if f"{os.sep}minild{os.sep}" in frame.filename]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1]) or "outside minild"


def main(readers, arguments):
    """python -m tests.fuzz --child: figures as JSON on stdout."""
    name, seed, first, last, base, progress = arguments
    figures = run(readers[name], int(seed), int(first), int(last), base, progress)
    print(json.dumps(figures))


def main_of_all(readers, arguments):
    """python -m tests.fuzz --few N FOLDER: N inputs for every reader, all in this process; {name: figures}."""
    several, folder = int(arguments[0]), Path(arguments[1])
    figures = {}
    for name, reader in readers.items():
        base, few = folder / name, max(2, several // 5) if reader.slow else several
        base.mkdir()
        (base / "progress").touch()
        figures[name] = run(reader, 0, 0, few, base, base / "progress", warm=2)
    print(json.dumps(figures))
