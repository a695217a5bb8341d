"""The process in which a student's function runs: it makes the arguments, confines itself, calls, and sends arrays.

It never says whether anything is right. What it sends are the values that the function gave for arguments drawn from a
secret seed; whoever takes the process over can send others, but has to know them.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import traceback
import types

import numpy as np

from minild.course import confine, double, wire
from minild.course.task import Misuse, arrays_in, require_signature, resolve
from minild.course.tasks import TASKS
from minild.engine import using

LONGEST = 500  # characters of an explanation
# What a file may import beside minild, and what Python and NumPy import only when they come to need it: all of it is
# imported beforehand, for nothing can be read from disk once the file runs.
AT_HAND = (
    "_strptime", "abc", "argparse", "array", "ast", "base64", "bisect", "calendar", "cmath", "codecs", "collections",
    "collections.abc", "colorsys", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "dis",
    "encodings.ascii", "encodings.cp1251", "encodings.cp1252", "encodings.cp437", "encodings.gbk",
    "encodings.iso8859_15", "encodings.latin_1", "encodings.utf_16", "encodings.utf_8_sig", "enum", "fractions",
    "functools", "gc", "glob", "graphlib", "hashlib", "heapq", "inspect", "io", "itertools", "json", "keyword",
    "linecache", "logging", "math", "numbers", "operator", "os", "pathlib", "pickle", "platform", "pprint",
    "pydoc", "queue", "random", "re", "reprlib", "secrets", "shutil", "statistics", "string", "struct", "sys",
    "tempfile", "textwrap", "threading", "time", "timeit", "tokenize", "traceback", "types", "typing", "unicodedata",
    "unittest", "unittest.mock", "uuid", "warnings", "weakref", "zlib",
    "numpy.char", "numpy.fft", "numpy.lib.recfunctions", "numpy.lib.stride_tricks", "numpy.linalg", "numpy.ma",
    "numpy.polynomial", "numpy.random", "numpy.rec", "numpy.testing", "numpy.typing",
    "minild.course.tasks", "minild.diffusion", "minild.gradcheck", "minild.models", "minild.nn.attention",
)
# Students may check their own functions with these, except where the checker is the task itself.
CHECKERS = ("minild.gradcheck:check", "minild.gradcheck:check_module")


def stand_by():
    """Fork a process for every connection that comes by stdin, a socket; end it, and tell its exit status, when asked.

    One at a time. What was forked has no way to the others, nor to this process.
    """
    control = socket.socket(fileno=os.dup(0))
    _import_all()
    control.sendall(b"r")
    while True:
        word, connections, *_ = socket.recv_fds(control, 1, 1)
        if not word:
            return
        [connection] = connections
        forked = os.fork()
        if not forked:
            os.setsid()
            control.close()
            for stream in (0, 1):
                os.dup2(connection, stream)
            os.close(connection)
            main()
        os.close(connection)
        control.recv(1)
        for kill in (os.killpg, os.kill):  # the group is not there until what was forked has made it
            with contextlib.suppress(OSError):
                kill(forked, signal.SIGKILL)
        _, status = os.waitpid(forked, 0)
        control.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def main():
    """Read a request from stdin, answer on what was stdout; what the student prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    request = json.loads(sys.stdin.buffer.readline())
    source = sys.stdin.buffer.read()
    os.dup2(nowhere, 0)
    try:
        message = _answer(request, source)
    except BaseException as error:
        message = wire.pack("wrong", f"the process could not go on: {type(error).__name__}")
    answers.write(message)
    answers.flush()
    os._exit(0)  # and nothing that the student left for the end


def _import_all():
    for name in AT_HAND:
        importlib.import_module(name)


def _answer(request, source):
    _import_all()
    double.register()
    task = next(task for task in TASKS if task.number == request["task"])
    trials, asked = make_trials(task, request["seed"]), task.signature
    others = others_of(task)
    confine.withhold(task.reference, allowed_to(task))
    for function in planted():
        confine.empty(function, confine.WITHHELD)
    confine.limit(request["seconds"], request["megabytes"])
    confine.close()
    try:
        module = _load(source)
        # Never the student's own: a task does not hang on an earlier one.
        vars(module).update({name: f for name, f in others.items() if name in vars(module)})
        function = vars(module).get(task.function_name)
        if function is None:
            return wire.pack("not started", f"the file has no function {task.function_name}")
        require_signature(function, task.function_name, asked)
        arrays = evaluate_all(task, function, trials)
    except BaseException as error:  # SystemExit, too
        return wire.pack(*explain(error, task.function_name))
    return wire.pack("values", arrays=arrays)


def others_of(task):
    """The functions of the library, by name, that stand in for other tasks' functions where the task may call these."""
    return {other.function_name: other.reference for other in TASKS if other.stands_for in task.uses}


def allowed_to(task):
    """What of the library the task's function may call."""
    checkers = () if task.stands_for in CHECKERS else CHECKERS
    return [resolve(use) for use in (*task.uses, *checkers)]


def planted():
    """The functions with common faults, of all tasks."""
    return [function for task in TASKS for function in task.faults.values()]


def make_trials(task, seed):
    """The (arguments, device) that the task is tried on: alike in the worker and in whoever judges.

    On the textbook's ops: a layer's cache then leads to a backward that the task may call.
    """
    trials = []
    with using("textbook"):
        for i, dtype in enumerate(("float64", "float32")):
            for device in task.devices:
                rng = np.random.default_rng([seed, i])
                trials += [(arguments, device) for arguments in task.cases(rng, np.dtype(dtype))]
    return trials


def evaluate_all(task, function, trials):
    """What `evaluate` gives for every trial, each label after the trial's number, "0:out:y"."""
    arrays = []
    for i, (arguments, device) in enumerate(trials):
        arrays += [(f"{i}:{label}", array) for label, array in evaluate(task, function, arguments, device)]
    return arrays


def evaluate(task, function, arguments, device="cpu"):
    """Call the function -> [(label, array)]: "out:NAME" for its outputs, "in:PATH" for its arguments afterwards.

    An output that is None has no entry. Misuse for outputs that are no arrays, or not on the arguments' device.
    """
    if device != "cpu":
        from minild.backend import to_device

        arguments = double.moved(arguments, lambda x: to_device(x, device))
    with using("textbook"):
        outputs = task.run(function, arguments)
    after = [(f"in:{path}", _plain(array, path, None)) for path, array in arrays_in(arguments)]
    made = [(f"out:{name}", _plain(array, name, device)) for name, array in outputs.items() if array is not None]
    return made + after


def _plain(array, name, device):
    """A host copy of an array or a number."""
    on_device = isinstance(array, double.DeviceArray)
    if device is not None and on_device != (device != "cpu") and np.ndim(array):
        raise Misuse(f"{name} is an array of the host for arguments on a device: make it with get_array_module(x)")
    if on_device:
        array = double.to_host(array)
    if not isinstance(array, (np.ndarray, np.generic, float, int, bool)):
        raise Misuse(f"{name}: expected an array, got a {type(array).__name__}")
    array = np.array(array)
    if array.dtype.str not in wire.DTYPES:
        raise Misuse(f"{name}: expected an array of numbers, got dtype {array.dtype}")
    return array


def _load(source):
    """The student's file as a module, its lines known to tracebacks."""
    module = types.ModuleType("submission")
    module.__file__ = "submission"
    sys.modules["submission"] = module  # where dataclasses look for it
    try:
        code = compile(source, "submission", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Misuse(f"the file is not valid Python: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a zero byte, brackets without end
        raise Misuse(f"the file is not valid Python: {error}") from None
    exec(code, vars(module))
    return module


def explain(error, name, file="submission"):
    """(outcome, text) for what the student's file, or the function of that name in it, raised."""
    walk = traceback.walk_tb(error.__traceback__)
    places = [(frame.f_code.co_name, line) for frame, line in walk if frame.f_code.co_filename == file]
    if isinstance(error, NotImplementedError) and places:
        place = places[-1][0]
        return ("not started", "") if place == name else ("wrong", f"calls {place}, which is not written")
    if isinstance(error, Misuse):
        return "wrong", str(error)[:LONGEST]
    where = f"line {places[-1][1]}: " if places else ""
    if isinstance(error, MemoryError):
        return "wrong", f"{where}asks for too much memory"
    if isinstance(error, SystemExit):
        return "wrong", f"{where}tries to exit"
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "..."
    return "wrong", f"{where}{type(error).__name__}: {text}"[:LONGEST]

