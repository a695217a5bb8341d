"""What students hand in for task 6.2: right, by mistake wrong, and to cheat."""

import textwrap

from minild.course import wire

RIGHT = "def add_noise(z, noise, signal_level, noise_level):\n    return signal_level * z + noise_level * noise\n"


def body(text, function="add_noise(z, noise, signal_level, noise_level)"):
    return f"import numpy as np\n\ndef {function}:\n" + textwrap.indent(textwrap.dedent(text), "    ")


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
    (body("return (signal_level * z + noise_level * noise).astype(float)"), "expected float32: a float64 came in"),
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

REFERENCE = "minild.diffusion.schedule"
ARGUMENTS = "z, noise, signal_level, noise_level"
CHEATS = {
    "calls the library's function": f"from {REFERENCE} import add_noise as f\n" + body(f"return f({ARGUMENTS})"),
    "calls it by another module's name for it": "import minild.diffusion.loss as m\n" + body(
        f"return m.add_noise({ARGUMENTS})"),
    "takes it from the table of tasks": "from minild.course.tasks import TASKS\n" + body(
        f"return next(t for t in TASKS if t.number == '6.2').reference({ARGUMENTS})"),
    "calls a wrong function of the grader, arguments exchanged": "from minild.course.tasks import TASKS\n" + body("""
        fault = list(next(t for t in TASKS if t.number == '6.2').faults.values())[0]
        return fault(z, noise, noise_level, signal_level)"""),
    "calls the module in which these are made": "from minild.course import faults\n" + body(
        "return faults.one_generator([], ())"),
    "reads the library's source": body(
        f"import {REFERENCE} as m; text = open(m.__file__).read(); exec(text, globals())"),
    "opens a program as bytes": body("import io, os; return io.FileIO('/proc/self/exe').read(4)"),
    "asks `inspect` for the source": body(f"import inspect, {REFERENCE} as m; exec(inspect.getsource(m)); return z"),
    "loads the module again": body(
        f"import importlib, {REFERENCE} as m; return importlib.reload(m).add_noise({ARGUMENTS})"),
    "starts a process": body("import os; return os.system('true')"),
    "forks": body("import os; os.fork(); return z"),
    "kills the grader": body("import os; os.kill(os.getppid(), 9)"),
    "calls C by `ctypes`": body("import ctypes; return ctypes.CDLL(None).getpid()"),
    "looks for `ctypes` in a module of the library": body(
        "import minild.backend as b; return b.ctypes.CDLL(None).getpid()"),
    "asks the garbage collector for all objects": body("import gc; return len(gc.get_objects())"),
    "opens a socket": body("import socket; return socket.socket()"),
    "starts a thread": body("import _thread; _thread.start_new_thread(print, ()); return z"),
    "lifts the limits of time and memory": body(
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99)); return z"),
    "patches the judge": body("""
        import minild.course.judge as judge
        judge.Judge.fault = lambda *a: None
        return z"""),
    "patches NumPy's comparisons": body("""
        np.array_equal = np.allclose = np.all = lambda *a, **k: True
        np.max = np.abs = lambda *a, **k: 0.0
        return z"""),
    "patches the process that calls it": body("""
        import sys
        worker = sys.modules["minild.course.worker"]
        worker.evaluate = lambda *a, **k: []
        return z"""),
    "returns an array that says it equals every other": body("""
        class Same(np.ndarray):
            def __eq__(self, other): return True
            def __abs__(self): return 0
        return z.view(Same)"""),
    "writes \"right\" to every open file": body("""
        import os
        for fd in range(3, 20):
            try: os.write(fd, b'right')
            except OSError: pass
        return z"""),
    "writes a forged answer to every open file, and exits": body(f"""
        import os
        for fd in range(3, 20):
            try: os.write(fd, {wire.pack("right")!r})
            except OSError: pass
        os._exit(0)"""),
    "exchanges the code of a function": body("""
        import minild.diffusion.schedule as m
        def mine(): pass
        m.predict_clean.__code__ = mine.__code__
        return z"""),
    "makes byte code": body("return (lambda: z).__code__.replace(co_consts=())"),
    "loads byte code": body("import marshal; return eval(marshal.loads(b'c'))"),
    "loads a pickle that runs a command": body(
        "import pickle; return pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')"),
    "asks who else holds its arguments": body("import gc; return gc.get_referrers(z)"),
    "loads a file as an array": body("import numpy; return np.load('/etc/passwd')"),
    "maps a file into memory": body("return np.memmap('/proc/self/exe', np.uint8, 'r')[:4]"),
    "reads a file as numbers": body("return np.fromfile('/proc/self/exe', np.uint8)[:4]"),
    "writes a file of numbers": body("np.savetxt('/tmp/x', z.ravel()); return z"),
    "lets an array write itself to a file": body("z.tofile('/tmp/x'); return z"),
    "loads a C library through NumPy": body("return np.ctypeslib.load_library('libc', '/lib')"),
    "asks for an array's address": body("return z.ctypes.data"),
    "has NumPy run a text as code": body("import numpy.testing as t; return t.measure('1')"),
    "brings `ctypes` back": body("import importlib; return importlib.import_module('_ctypes').dlopen(None, 0)"),
    "makes a built-in module by hand": body("""
        import _imp, importlib.machinery as m
        return _imp.create_builtin(m.ModuleSpec('_posixsubprocess', None))"""),
    "starts a process by `subprocess`": body("import subprocess; return subprocess.run(['true'])"),
    "starts a pool of processes": body("import multiprocessing; return multiprocessing.Pool(2)"),
    "starts a thread by `threading`": body("import threading; threading.Thread(target=print).start(); return z"),
    "takes over a signal": body("import signal; signal.signal(signal.SIGINT, print); return z"),
    "makes a temporary file": body("import tempfile; return tempfile.TemporaryFile()"),
    "reads a file by `pathlib`": body("import pathlib; return pathlib.Path('/etc/passwd').read_text()"),
    "lists a folder": body("import os; return os.listdir('/')"),
    "changes the folder": body("import os; os.chdir('/'); return z"),
    "makes a named pipe": body("import os; os.mkfifo('/tmp/minild-fifo'); return z"),
    "asks for other processors": body("import os; os.sched_setaffinity(0, {0}); return z"),
    "sets the clock": body("import time; time.clock_settime(time.CLOCK_REALTIME, 0); return z"),
    "adds an audit hook of its own": body("import sys; sys.addaudithook(print); return z"),
    "traces the process": body("import sys; sys.settrace(lambda *a: None); return z"),
    "profiles the process": body("import sys; sys.setprofile(lambda *a: None); return z"),
    "finds a class that opens files": body("""
        for kind in object.__subclasses__():
            if kind.__name__ in ('FileLoader', 'SourceFileLoader', '_IOBase'): pass
        import importlib.machinery as m
        return m.SourceFileLoader('x', '/etc/passwd').get_data('/etc/passwd')"""),
    "looks into the frames of its callers": body("""
        import sys
        frame = sys._getframe()
        while 'trials' not in frame.f_locals: frame = frame.f_back
        return frame.f_locals['trials'][0][0]['z']"""),
    "exchanges what the refusal is made of": body("""
        import sys
        try: open('x')
        except PermissionError as error:
            frame = error.__traceback__.tb_next.tb_frame
            frame.f_globals['hook'] = frame.f_globals['PermissionError'] = print
            frame.f_globals['ModuleNotFoundError'] = print
        return open(np.__file__)"""),
}
