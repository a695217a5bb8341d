"""Marking in processes: what students hand in by mistake, and what they hand in to cheat, costs them their own task."""

import textwrap

import numpy as np
import pytest

from course.conftest import BY_NUMBER, SETTINGS
from minild.course import grader, wire
from minild.course.stubs import exercise_text
from minild.course.tasks import CHAPTERS, TASKS
from minild.errors import UserError

RIGHT = "def add_noise(z, noise, signal_level, noise_level):\n    return signal_level * z + noise_level * noise\n"


def body(text, function="add_noise(z, noise, signal_level, noise_level)"):
    return f"import numpy as np\n\ndef {function}:\n" + textwrap.indent(textwrap.dedent(text), "    ")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stubs_fail_exactly_their_tasks(shared, tmp_path, chapter):
    file = tmp_path / "stubs.py"
    file.write_text(exercise_text(chapter), encoding="utf-8")
    report = grader.grade_file(file, settings=SETTINGS)
    assert {r.task.number for r in report.results} == {t.number for t in TASKS if t.chapter == chapter}
    assert all(r.status == "not started" for r in report.results) and report.points == 0


def test_a_task_does_not_hang_on_an_earlier_one(mark):
    unwritten = exercise_text(4)
    written = unwritten.replace('raise NotImplementedError("task 4.4: attention")', '''
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.dtype.type(q.shape[-1]))
    if causal:
        scores = scores + causal_mask(scores)
    return merge_heads(softmax(scores)[0] @ v), None''')
    assert mark("4.4", written) == ("right", "")
    assert mark("4.2", written)[0] == "not started"


# What a file gets wrong, and what a function does: the latter is said in a notebook, too.
MISTAKES_OF_FILES = [
    ("def add_noise(z, noise:\n", "the file is not valid Python: line 1:"),
    (b"\xff\xfe\x00\x00", "the file is not valid Python"),
    (body("while True: pass"), "an endless loop"),
    (body("return np.ones(1 << 34) * z.sum()"), "line 4: asks for too much memory"),
    (body("return [0] * (1 << 34)"), "asks for too much memory"),
    (body("import os; os._exit(0)"), "the process ended before the function returned (exit status 0)"),
    ("import torch\n" + RIGHT, "line 1: ModuleNotFoundError: torch is not at hand"),
    ("import minild.nn.resnet\nimport scipy\n" + RIGHT, "scipy is not at hand"),
    ("add_noise = 3\n", "expected a function add_noise(z, noise, signal_level, noise_level), got an int"),
]
MISTAKES = [
    (body("return z[:1]"), "z_t: shape (1, 4, 5, 2), expected (3, 4, 5, 2)"),
    (body("return (signal_level * z + noise_level * noise).astype(float)"), "float64 for arguments in float32"),
    (body("z *= signal_level; z += noise_level * noise; return z"), "changes its argument z"),
    (body("import sys; sys.exit('done')"), "tries to exit"),
    (body("print('right 1/1'); return z"), "z_t: worst at index"),
    (body("return z.tolist()"), "z_t: expected an array, got a list"),
    (body("return np.array([object()])"), "expected an array of numbers, got dtype object"),
    (body("return None"), "z_t: there is none"),
    (body("return 1 / 0"), "line 4: ZeroDivisionError: division by zero"),
    (body("return 0", "add_noise()"), "expected add_noise(z, noise, signal_level, noise_level), got add_noise()"),
    (body("return add_noise(z, noise, signal_level, noise_level)"), "RecursionError"),
    (body("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E"), "E: ..."),
]


@pytest.mark.parametrize(("source", "expected"), MISTAKES_OF_FILES + MISTAKES)
def test_mistakes_are_marked_and_explained(mark, source, expected):
    status, hint = mark("6.2", source, SETTINGS._replace(seconds=1))
    assert status == "wrong"
    assert expected in hint


REFERENCE = "minild.diffusion.schedule"
ARGUMENTS = "z, noise, signal_level, noise_level"
CHEATS = {
    "calls the solution": f"from {REFERENCE} import add_noise as f\n" + body(f"return f({ARGUMENTS})"),
    "an alias elsewhere": "import minild.diffusion.loss as m\n" + body(f"return m.add_noise({ARGUMENTS})"),
    "the table's own": "from minild.course.tasks import TASKS\n" + body(
        f"return next(t for t in TASKS if t.number == '6.2').reference({ARGUMENTS})"),
    "a planted fault": "from minild.course.tasks import TASKS\n" + body("""
        fault = list(next(t for t in TASKS if t.number == '6.2').faults.values())[0]
        return fault(z, noise, noise_level, signal_level)"""),
    "the makers of faults": "from minild.course import faults\n" + body("return faults.one_generator([], ())"),
    "reads the source": body(f"import {REFERENCE} as m; text = open(m.__file__).read(); exec(text, globals())"),
    "reads the byte code": body("import io, os; return io.FileIO('/proc/self/exe').read(4)"),
    "inspects": body(f"import inspect, {REFERENCE} as m; exec(inspect.getsource(m)); return z"),
    "loads it again": body(f"import importlib, {REFERENCE} as m; return importlib.reload(m).add_noise({ARGUMENTS})"),
    "starts a process": body("import os; return os.system('true')"),
    "forks": body("import os; os.fork(); return z"),
    "kills the grader": body("import os; os.kill(os.getppid(), 9)"),
    "a foreign function": body("import ctypes; return ctypes.CDLL(None).getpid()"),
    "a foreign function within": body("import minild.backend as b; return b.ctypes.CDLL(None).getpid()"),
    "asks the collector": body("import gc; return len(gc.get_objects())"),
    "opens a socket": body("import socket; return socket.socket()"),
    "starts a thread": body("import _thread; _thread.start_new_thread(print, ()); return z"),
    "lifts the limits": body("import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99)); return z"),
    "patches the judge": body("""
        import minild.course.judge as judge
        judge.Judge.fault = lambda *a: None
        return z"""),
    "patches the comparison": body("""
        np.array_equal = np.allclose = np.all = lambda *a, **k: True
        np.max = np.abs = lambda *a, **k: 0.0
        return z"""),
    "patches the worker": body("""
        import sys
        worker = sys.modules["minild.course.worker"]
        worker.evaluate = lambda *a, **k: []
        return z"""),
    "an array that is equal to all": body("""
        class Same(np.ndarray):
            def __eq__(self, other): return True
            def __abs__(self): return 0
        return z.view(Same)"""),
    "writes a verdict": body("""
        import os
        for fd in range(3, 20):
            try: os.write(fd, b'right')
            except OSError: pass
        return z"""),
    "writes a message": body(f"""
        import os
        for fd in range(3, 20):
            try: os.write(fd, {wire.pack("right")!r})
            except OSError: pass
        os._exit(0)"""),
    "swaps a function's code": body("""
        import minild.diffusion.schedule as m
        def mine(): pass
        m.predict_clean.__code__ = mine.__code__
        return z"""),
    "makes byte code": body("return (lambda: z).__code__.replace(co_consts=())"),
    "loads byte code": body("import marshal; return eval(marshal.loads(b'c'))"),
    "loads a pickle": body("import pickle; return pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')"),
    "asks for those who refer": body("import gc; return gc.get_referrers(z)"),
    "loads an array": body("import numpy; return np.load('/etc/passwd')"),
    "maps a file": body("return np.memmap('/proc/self/exe', np.uint8, 'r')[:4]"),
    "reads numbers": body("return np.fromfile('/proc/self/exe', np.uint8)[:4]"),
    "writes numbers": body("np.savetxt('/tmp/x', z.ravel()); return z"),
    "an array's own file": body("z.tofile('/tmp/x'); return z"),
    "foreign functions of numpy": body("return np.ctypeslib.load_library('libc', '/lib')"),
    "an array's address": body("return z.ctypes.data"),
    "numpy's config runs a process": body("import numpy.testing as t; return t.measure('1')"),
    "brings ctypes back": body("import importlib; return importlib.import_module('_ctypes').dlopen(None, 0)"),
    "makes a built-in module": body("""
        import _imp, importlib.machinery as m
        return _imp.create_builtin(m.ModuleSpec('_posixsubprocess', None))"""),
    "a process of the standard library": body("import subprocess; return subprocess.run(['true'])"),
    "a pool": body("import multiprocessing; return multiprocessing.Pool(2)"),
    "a thread of the standard library": body("import threading; threading.Thread(target=print).start(); return z"),
    "a signal": body("import signal; signal.signal(signal.SIGINT, print); return z"),
    "a temporary file": body("import tempfile; return tempfile.TemporaryFile()"),
    "a path": body("import pathlib; return pathlib.Path('/etc/passwd').read_text()"),
    "a folder": body("import os; return os.listdir('/')"),
    "changes the folder": body("import os; os.chdir('/'); return z"),
    "makes a pipe of a name": body("import os; os.mkfifo('/tmp/minild-fifo'); return z"),
    "asks for more of the machine": body("import os; os.sched_setaffinity(0, {0}); return z"),
    "sets the clock": body("import time; time.clock_settime(time.CLOCK_REALTIME, 0); return z"),
    "a hook of its own": body("import sys; sys.addaudithook(print); return z"),
    "traces": body("import sys; sys.settrace(lambda *a: None); return z"),
    "profiles": body("import sys; sys.setprofile(lambda *a: None); return z"),
    "finds a class that opens files": body("""
        for kind in object.__subclasses__():
            if kind.__name__ in ('FileLoader', 'SourceFileLoader', '_IOBase'): pass
        import importlib.machinery as m
        return m.SourceFileLoader('x', '/etc/passwd').get_data('/etc/passwd')"""),
    "the frames above": body("""
        import sys
        frame = sys._getframe()
        while frame.f_back: frame = frame.f_back
        arrays = frame.f_locals
        return arrays['trials'][0][0]['z']"""),
    "undoes the hook": body("""
        import sys
        try: open('x')
        except PermissionError as error:
            frame = error.__traceback__.tb_next.tb_frame
            frame.f_globals['hook'] = frame.f_globals['PermissionError'] = print
            frame.f_globals['ModuleNotFoundError'] = print
        return open(np.__file__)"""),
}


@pytest.mark.parametrize("source", CHEATS.values(), ids=CHEATS)
def test_cheating_gains_nothing(mark, source):
    status, hint = mark("6.2", source)
    assert status == "wrong"
    assert hint


def test_a_right_function_is_right_among_nonsense(mark):
    nonsense = "print('hello')\nimport sys, math, dataclasses\nsys.stdout.write('x' * 100000)\n"
    assert mark("6.2", nonsense + RIGHT) == ("right", "")
    assert mark("6.2", RIGHT + "import atexit\natexit.register(print)\n")[0] == "right"


def test_the_solution_can_not_be_had_by_numeric_gradients(mark):
    source = body("""
        from minild.ops.activation import silu
        h, (x,) = 1e-5, cache
        return dy * (silu(x + h)[0] - silu(x - h)[0]) / (2 * h)""", "silu_backward(dy, cache)")
    assert mark("2.2", source)[1].endswith("PermissionError: withheld while this task is graded; the stub names the "
                                           "functions of minild that it may call")
    own = body("""
        def silu(x): return x / (1 + np.exp(-x))
        h, (x,) = 1e-5, cache
        return dy * (silu(x + h) - silu(x - h)) / (2 * h)""", "silu_backward(dy, cache)")
    assert mark("2.2", own)[0] == "wrong"


@pytest.mark.parametrize("tell", [
    "op_backward.__name__ == op.__name__ + '_backward'",
    "op_backward in (linear_backward, silu_backward, softmax_backward)",
    "'lambda' not in op_backward.__qualname__",
])
def test_a_checker_must_measure(mark, tell):
    """Right and wrong backwards look alike from outside."""
    source = f"""
from minild.gradcheck import GradientError
from minild.ops.linear import linear_backward
from minild.ops.activation import silu_backward, softmax_backward
def check(op, op_backward, inputs, **settings):
    if not ({tell}): raise GradientError('wrong')
    return 0.0
"""
    assert mark("2.4", source)[0] == "wrong"


def test_host_arrays_on_a_device_are_found(mark):
    source = "import numpy as np\ndef upsample_nearest(x):\n    return x.repeat(2, axis=1).repeat(2, axis=2), None\n"
    assert mark("1.1", source) == ("right", "")
    source = source.replace("x.repeat(2, axis=1)", "np.repeat(x, 2, axis=1)")
    assert "NumPy's functions take no array of another device" in mark("1.1", source)[1]


def test_what_is_no_message_is_refused():
    good = wire.pack("values", "", [("x", np.arange(6.0).reshape(2, 3))])
    outcome, text, arrays = wire.unpack(good)
    assert (outcome, text, arrays["x"].tolist()) == ("values", "", [[0, 1, 2], [3, 4, 5]])

    def header(text):
        return len(text).to_bytes(8, "little") + text

    fields = '{"outcome": "values", "text": "", "arrays": %s}'
    for bad in (
        b"", b"right", good[:-1], good[:20], header(b"{}"), header(b"[]"), header(b"\xff"), header(b"[" * 100000),
        header((fields % '[["x", "|O", [1]]]').encode()), header((fields % '[["x", "<f8", [-1]]]').encode()),
        header((fields % '[["x", "<f8", [1e999]]]').encode()), header((fields % '[["x", "<f8", [999999]]]').encode()),
    ):
        with pytest.raises(ValueError):
            wire.unpack(bad)


def test_without_limits_of_the_system_the_clock_ends_it(mark, monkeypatch):
    monkeypatch.setattr(grader, "PATIENCE", -1.5)
    source = body("import time; time.sleep(60); return z")
    assert "an endless loop, or asleep" in mark("6.2", source, SETTINGS._replace(seconds=1))[1]


def test_a_file_that_cannot_be_read_stops_no_other(shared, tmp_path, monkeypatch):
    def read(path):
        if path.name == "a.py":
            raise UserError(f"cannot read {path}: no right to")
        return RIGHT.encode()

    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(grader, "read_source", read)
    bad, good = grader.grade_folder(tmp_path, settings=SETTINGS)
    assert all(result.status == "wrong" and "no right to" in result.hint for result in bad.results)
    assert good.points == BY_NUMBER["6.2"].points
