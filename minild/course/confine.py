"""What keeps a student's code from anything but its task: no library solution in memory, no file, no process, a limit.

The order matters: arguments are made with the library whole; then `withhold`, `limit` and `close`; then the student's
file is executed. None of them can be undone from within: the code of a withheld function is gone from the process, its
source and its byte code are in files, and after `close` no file can be opened.
"""

import contextlib
import functools
import math
import sys
import time
import types

try:
    import resource
except ImportError:  # Windows: the parent's clock is the only limit there
    resource = None

# Events of Python's own working (PEP 578). What is not here is refused: files, processes, sockets, signals, threads,
# foreign functions, pickles, byte code, the garbage collector's lists. Named tuples and data classes are made of source
# text, and set what a function or a class says of itself (its name, its defaults): all but a function's code.
HARMLESS = (
    "array.__new__",
    "builtins.id",
    "compile",
    "exec",
    "function.__new__",
    "object.__delattr__",
    "object.__getattr__",
    "object.__setattr__",
    "os.putenv",
    "os.unsetenv",
    "sys._getframe",
    "sys._getframemodulename",
    "sys.excepthook",
    "sys.unraisablehook",
    "time.sleep",
)
# What reaches out and raises no event: modules, and functions of modules that stay.
SILENT_MODULES = ("_ctypes", "_posixsubprocess", "ctypes", "resource", "threadpoolctl")
SILENT_FUNCTIONS = {
    "_imp": ("create_builtin", "create_dynamic"),  # would bring the modules back
    "_thread": ("start_new_thread",),  # tells of itself from Python 3.12 on
    "gc": ("set_debug",),
    "posix": ("mkfifo", "mknod", "sched_setaffinity", "sched_setparam", "sched_setscheduler", "setpriority"),
    "time": ("clock_settime", "clock_settime_ns"),
}
# Modules that are left as they are, beside these here.
FREE = (
    "minild.backend",
    "minild.engine.calls",
    "minild.engine.choice",
    "minild.engine.cores",
    "minild.engine.memory",
    "minild.errors",
    "minild.nn.module",
    "minild.ops.validate",
)
ASKED = "this is the function that you are asked to write"
WITHHELD = "withheld while this task is graded; the stub names the functions of minild that it may call"


def withhold(reference, uses):
    """Empty every function of minild but those of `uses` and what they call.

    reference: the function that the task stands for. The code is taken out of the function itself, so every name,
    method and instance that leads to it leads to the empty one.
    """
    for function, message in _to_withhold(reference, uses).items():
        empty(function, message)


@contextlib.contextmanager
def withheld(reference, uses, planted=()):
    """Within it, what `withhold` empties is empty, and so are the functions `planted`; then all is as it was."""
    functions = {**dict.fromkeys(planted, WITHHELD), **_to_withhold(reference, uses)}
    kept = [(function, function.__code__, function.__defaults__, function.__kwdefaults__) for function in functions]
    try:
        for function, message in functions.items():
            empty(function, message)
        yield
    finally:
        for function, *parts in kept:
            function.__code__, function.__defaults__, function.__kwdefaults__ = parts


def _to_withhold(reference, uses):
    """{function: what it is to say when it is called}."""
    allowed = _with_callees(uses)
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "minild" and not _is_free(name)]
    functions = {function for module in modules for function in _functions_of(module)} - allowed
    return {**dict.fromkeys(functions, WITHHELD), reference: ASKED}


def empty(function, message):
    """Let the function raise PermissionError, and nothing else, from now on."""
    # As many free variables as it has (super() makes one), or Python would not exchange the code.
    function.__code__ = _empty_code(len(function.__code__.co_freevars), message)
    function.__defaults__ = function.__kwdefaults__ = None


@functools.cache
def _empty_code(count, message):
    scope = {"count": count}
    exec(_EMPTY.format(free=", ".join(f"free{i}" for i in range(count)), message=message), scope)
    return scope["made"].__code__


_EMPTY = """
def make({free}):
    def empty(*args, **kwargs):
        raise PermissionError({message!r})
        [{free}]
    return empty
made = make(*range(count))
"""


def _is_free(name):
    return name in FREE or (name.startswith("minild.course.") and name != "minild.course.faults")


def _functions_of(module):
    """The plain functions defined in a module: its own, those of its classes, those within decorators."""
    for value in list(vars(module).values()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            found = map(_plain, vars(value).values())
        else:
            found = [_plain(value)]
        yield from (function for function in found if function and function.__globals__ is vars(module))


def _plain(value):
    """The function within a method, a property or a decorator; None for anything else."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    return value if isinstance(value, types.FunctionType) else None


def _is_ours(function):
    return function.__globals__.get("__name__", "").split(".")[0] == "minild"  # and not a named tuple's own


def _with_callees(values):
    """All functions of minild that the values (functions, classes) can come to call by name."""
    found, waiting = set(), list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, type):
            waiting += [f for f in map(_plain, vars(value).values()) if f]
            waiting += [base for base in value.__bases__ if base.__module__.startswith("minild.")]
            continue
        function = _plain(value)
        if function is None or function in found or not _is_ours(function):
            continue
        found.add(function)
        waiting += function.__defaults__ or ()  # the ops that a composite takes as arguments
        names = _names_in(function.__code__)
        for name in names & function.__globals__.keys():
            called = function.__globals__[name]
            if isinstance(called, types.ModuleType) and called.__name__.startswith("minild."):
                waiting += [getattr(called, n) for n in names if hasattr(called, n)]
            elif isinstance(called, (dict, list, tuple)):
                waiting += called.values() if isinstance(called, dict) else called
            elif isinstance(called, type) or _plain(called):
                waiting.append(called)
            elif type(called).__module__.startswith("minild."):  # a layer, and the functions that it holds
                waiting += [type(called), *vars(called).values()]
    return found


def _names_in(code):
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {*code.co_names, *(name for part in inner for name in _names_in(part))}


def limit(seconds, megabytes):
    """Limit the processor time and the memory, each beyond what was used so far; nothing more can be opened."""
    if resource is None:
        return
    limits = {
        "RLIMIT_CPU": math.ceil(time.process_time() + seconds),
        "RLIMIT_AS": _memory_in_use() + (megabytes << 20),
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 0,  # those that are open stay so
    }
    for name, most in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _memory_in_use():
    """Bytes of address space; where the system does not tell, what an interpreter with NumPy takes at most."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


def close():
    """Refuse, for good, everything that goes beyond computing; and take away what would get around that."""
    for name in [name for name in sys.modules if _is_of(name, SILENT_MODULES)]:
        del sys.modules[name]
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if isinstance(module, types.ModuleType) else ():
            if isinstance(value, types.ModuleType) and _is_of(value.__name__, SILENT_MODULES):
                delattr(module, name)
            elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)) and _is_silent(value):
                setattr(module, name, _refused(value.__name__))
    scope = {}
    exec(_HOOK.format(harmless=HARMLESS), scope)
    sys.addaudithook(scope.pop("hook"))


def _is_of(name, modules):
    return name.split(".")[0] in modules


def _is_silent(value):
    """Whether a class or a function is one that reaches out and raises no event."""
    home = value.__module__ if isinstance(value.__module__, str) else ""
    return _is_of(home, SILENT_MODULES) or value.__name__ in SILENT_FUNCTIONS.get(home, ())


def _refused(name):
    def refuse(*args, **kwargs):
        raise PermissionError(f"{name} is not allowed while a task is graded")

    return refuse


# Of constants alone, so that nothing that it consults can be exchanged. An import is refused in words of its own.
_HOOK = """
def hook(event, arguments):
    if event in {harmless} and (event != "object.__setattr__" or arguments[1] != "__code__"):
        return
    if event == "import":
        raise ModuleNotFoundError(f"{{arguments[0]}} is not at hand: import numpy, minild, math and the like only")
    raise PermissionError(f"{{event}} is not allowed while a task is graded")
"""
