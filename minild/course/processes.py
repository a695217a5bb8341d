"""The processes in which students' code runs: a new one for every task of every file, with a limit to its time.

Most of what a worker costs is its start, for it imports the whole library. So on Linux a process in which everything
is imported stands by, and a copy of it is forked for every task: some milliseconds. It never runs a student's code
itself. Elsewhere, a worker is started anew.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import minild
from minild.course import wire

BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from minild.course import worker; worker.{start}()"
KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TEMP")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
FORKS = sys.platform == "linux"
CHUNK = 1 << 16  # bytes read at once


class Answer(NamedTuple):
    """What a worker sent, whether it had to be ended because it was late, and its exit status (-9: by signal 9)."""

    message: bytes
    late: bool
    status: int


class Workers:
    """Processes for tasks, used as a context: with Workers() as workers: workers.ask(request, 15).

    Several threads may ask at once. Within the context, processes stand by for the next request.
    """

    def __init__(self, forks=FORKS):
        self.forks, self.standing_by = forks, SimpleQueue()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Empty):
            while True:
                self.standing_by.get_nowait().close()

    def ask(self, request, patience):
        """The Answer of a new process to the request, bytes; it is ended after `patience` seconds."""
        if not self.forks:
            return ask_new_process(request, patience)
        try:
            return self._ask(self.standing_by.get_nowait(), request, patience)
        except (Empty, ConnectionError):  # none stands by, or it has ended meanwhile
            return self._ask(StandingBy(), request, patience)

    def _ask(self, standing_by, request, patience):
        try:
            answer = standing_by.ask(request, patience)
        except BaseException:  # it may be in the middle of something: the next request is for another
            standing_by.close()
            raise
        self.standing_by.put(standing_by)
        return answer


class StandingBy:
    """The process in which everything is imported. It is told to fork, and to end what was forked."""

    def __init__(self):
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = _start("stand_by", theirs, subprocess.DEVNULL)
        if not self.control.recv(1):  # once it is ready, time is a task's own
            self.close()
            raise ConnectionError("no process for the students' code could be started")

    def ask(self, request, patience):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(self.control, [b"f"], [theirs.fileno()])
            message, late = _exchange(ours, request, time.monotonic() + patience)
        self.control.sendall(b"e")  # what was forked is ended, whatever it is doing
        status = self.control.recv(CHUNK)
        if not status:
            raise ConnectionError("the process that starts those of the students' code has ended")
        return Answer(message, late, int(status))

    def close(self):
        self.control.close()  # upon which it ends
        _kill(self.process)
        self.process.wait()


def _exchange(connection, request, deadline):
    """Send the request, and read the answer to its end -> (message, whether it was late)."""
    message = bytearray()
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may end before it has read
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while len(message) < wire.LIMIT:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                chunk = connection.recv(CHUNK)
                if not chunk:
                    break
                message += chunk
    except TimeoutError:
        return bytes(message), True
    return bytes(message), False


def ask_new_process(request, patience):
    """The Answer of a process that is started for the request."""
    process = _start("main", subprocess.PIPE, subprocess.PIPE)
    late = threading.Event()

    def stop():
        late.set()
        _kill(process)

    clock = threading.Timer(patience, stop)
    clock.start()
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(request)
        message = process.stdout.read(wire.LIMIT)
    finally:
        clock.cancel()
        _kill(process)
        process.stdout.close()
        status = process.wait()
    return Answer(message, late.is_set(), status)


def _start(start, stdin, stdout):
    """A Python that runs a function of minild.course.worker, apart from this one's environment."""
    root = str(Path(minild.__file__).parents[1])
    paths = [root, *(path for path in sys.path if path and path != root)]
    environment = {k: v for k, v in os.environ.items() if k in KEPT_VARIABLES} | dict.fromkeys(THREADS, "1")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", BOOT.format(start=start), json.dumps(paths)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _kill(process):
    """End a process and whatever it may have started."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
