"""`--with FILE.py`: the reader's own op pairs, read from a file, checked, and put into every model.

The file may be one of `minild exercise`: its forwards draw, and what is not written yet is minild's own.
"""

import ast
import contextlib
import difflib
import functools
import inspect
import itertools
import sys
import traceback
import types

from minild.cli.terminal import note, plural, without_warnings
from minild.errors import UserError

MODULE = "minild_own_ops"  # the file's name as a module, whatever the file is called
ALIKE = 0.85  # difflib's measure: groupnorm is meant as group_norm; conv, conv1d and rms_norm are names of their own
SHOWN = 8  # names of ops in a complaint
EXERCISES = "exercises of minild"  # in the head of a file of `minild exercise`


def read_own_ops(path, draws=False):
    """The op pairs that a file defines -> {name: (op, op_backward)}; without a file, {}.

    draws: nothing goes backwards, so that forwards are enough: backwards are left aside, wrong or right. (Those of the
    exercises take the library's caches, and so make no pair with the forwards.)
    UserError, in one line, for a file that cannot be read or run, that defines no op or half a pair, whose names or
    signatures are nearly but not quite the library's, and for a pair that computes something else.
    """
    if path is None:
        return {}
    from minild.engine.table import OPS
    from minild.engine.trial import require_same

    with without_warnings(), _running(path):
        module, source = _run(path)
        unwritten = _put_in_place(module, source) if draws else []
        functions = {name: f for name, f in _functions(module).items() if not (draws and name.endswith("_backward"))}
        if not draws and EXERCISES in (module.__doc__ or ""):
            told = "its backwards take the library's caches, so that it draws (minild txt2img), and does nothing else"
            raise UserError(f"{path} is a file of exercises: {told}")
        for name in functions:
            _require_known(path, name, functions, OPS, draws)
        names = [name for name in functions if name in OPS]
        own = {name: (functions[name], None if draws else functions[f"{name}_backward"]) for name in names}
        if not own:
            raise UserError(f"{path} {_nothing(unwritten, OPS, draws)}")
        if unwritten:
            note(f"{path.name}: not written yet, and minild's own in their place: {', '.join(unwritten)}")
        for name, (op, op_backward) in own.items():
            _require_signature(path, name, op, OPS[name].op, OPS)
            if op_backward:
                _require_signature(path, f"{name}_backward", op_backward, OPS[name].op_backward, OPS)
        for name, (op, op_backward) in own.items():
            try:
                require_same(name, op, op_backward)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
        return {name: (op, op_backward or _no_backward) for name, (op, op_backward) in own.items()}


def _no_backward(dy, cache):
    raise RuntimeError("a drawing went backwards")


def _put_in_place(module, source):
    """Exchange the exercises that are not written yet for the library's functions -> their names, but for backwards."""
    unwritten = [name for name in _unwritten_in(source) if name in vars(module)]
    if unwritten:
        from minild.course.tasks import TASKS

        theirs = {task.function_name: task.reference for task in TASKS}
        unwritten = [name for name in unwritten if name in theirs]
        vars(module).update((name, theirs[name]) for name in unwritten)
    return [name for name in unwritten if not name.endswith("_backward")]


def _unwritten_in(source):
    """The names of the functions of which the whole body, but for a docstring, is `raise NotImplementedError`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0]):
                yield node.name


def _nothing(unwritten, ops, draws):
    """What is said of a file without an op."""
    waiting = [name for name in unwritten if name in ops]
    if waiting:
        return f"has nothing to draw with yet: write {' or '.join(waiting)}"
    if draws:
        return f"defines no op to draw with: write a function such as silu ({_names(ops)})"
    return f"defines no op: write a pair such as silu and silu_backward ({_names(ops)})"


@contextlib.contextmanager
def using_own_ops(path, own):
    """Within it every model computes with the pairs `own` of the file `path`; with none of them, as ever.

    -> {name: an itertools.count, which the calls of that op move on}.
    """
    calls = {name: itertools.count() for name in own}
    if not own:
        yield calls
        return
    import minild

    def counted(name, op):
        @functools.wraps(op)
        def call(*arguments, **settings):
            next(calls[name])  # which threads may do side by side
            return op(*arguments, **settings)

        return call

    with minild.using(**{name: (counted(name, op), back) for name, (op, back) in own.items()}), _running(path):
        yield calls


def with_own_ops(path, own):
    """How a note begins that tells of them: "with my_ops.py (group_norm, silu)"."""
    return f"with {path.name} ({', '.join(own)})"


def told_of_calls(calls):
    """How often each op was called: "conv2d was called 187 times, gaussian_kl was not called"."""
    counts = {name: next(count) for name, count in calls.items()}
    times = {name: f"called {plural(count, 'time')}" if count else "not called" for name, count in counts.items()}
    return ", ".join(f"{name} was {text}" for name, text in times.items())


def _run(path):
    """The file as a module, and its source.

    Not by an importer of Python's: that would leave bytecode beside the reader's file.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a device, which may have no end
        raise UserError(f"cannot read {path}: it is no file")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        code = compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise UserError(f"{path}{f', line {error.lineno}' if error.lineno else ''}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):  # null bytes, or nested too deeply
        raise UserError(f"{path} is no Python file") from None
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # where dataclasses look for it
    exec(code, module.__dict__)
    return module, source


@contextlib.contextmanager
def _running(path):
    """The reader's code runs: what it prints goes to stderr, for stdout is the answer's; what it raises names its line.

    What is not about the code passes through: a lack of memory, a full disk, Ctrl-C.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (UserError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # an exit, too, and whatever else a file may raise
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
        if not lines and isinstance(error, OSError):
            raise
        where = f", line {lines[-1]}" if lines else ""  # none is known of what came from another process
        raise UserError(f"{path}{where}: {type(error).__name__}: {_text(error)}") from None


def _text(error):
    try:
        return str(error)
    except Exception:  # an exception of the file's own making, which cannot even tell
        return "..."


def _functions(module):
    """The public functions that the file itself defines, by name; not those that it imports."""

    def is_own(value):
        made_here = getattr(value, "__module__", None) == MODULE or isinstance(value, functools.partial)
        return callable(value) and not isinstance(value, type) and made_here

    return {name: value for name, value in vars(module).items() if not name.startswith("_") and is_own(value)}


def _require_known(path, name, functions, ops, draws):
    """UserError for half a pair, unless it `draws`, and for a name that was meant to be an op's.

    Other helpers are the reader's affair.
    """
    op = name.removesuffix("_backward")
    if op in ops:
        twin = op if name != op else f"{op}_backward"
        if twin not in functions and not draws:
            raise UserError(f"{path} defines {name} without {twin}: an op and its backward come as a pair")
        return
    meant = difflib.get_close_matches(op.lower(), ops, n=1, cutoff=ALIKE)
    if meant and (name != op or meant[0] not in functions):
        raise UserError(f"{path}: {op} is no op, did you mean {meant[0]}? (let a helper's name begin with _)")
    if name != op:
        raise UserError(f"{path}: {name} is the backward of no op ({_names(ops)}); let a helper's name begin with _")


def _names(ops):
    more = f", ... {len(ops)} in all" if len(ops) > SHOWN else ""
    return f"the ops are {', '.join(list(ops)[:SHOWN])}{more}"


def _require_signature(path, name, function, textbook, ops):
    mine, expected = _signature(function, ops), _signature(textbook, ops)
    if mine != expected:
        raise UserError(f"{path}: expected {name}{expected}, got {name}{mine}")


def _signature(function, ops):
    """Names, order and defaults of the parameters, as a text.

    Left out are those by which an op made of others takes these (attention(..., softmax=softmax)): functions, or named
    as an op. A reader's own op need not offer them.
    """

    def takes_a_part(parameter):
        optional = parameter.default is not parameter.empty
        return optional and (callable(parameter.default) or parameter.name.removesuffix("_backward") in ops)

    parameters = inspect.signature(function).parameters.values()
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters if not takes_a_part(p)]))
