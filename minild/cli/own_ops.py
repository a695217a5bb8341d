"""`--with FILE.py`: the reader's own op pairs, read from a file, checked, and put into every model."""

import contextlib
import difflib
import functools
import inspect
import sys
import traceback
import types

from minild.cli.terminal import without_warnings
from minild.errors import UserError

MODULE = "minild_own_ops"  # the file's name as a module, whatever the file is called
ALIKE = 0.85  # difflib's measure: groupnorm is meant as group_norm; conv, conv1d and rms_norm are names of their own
SHOWN = 8  # names of ops in a complaint


def read_own_ops(path):
    """The op pairs that a file defines -> {name: (op, op_backward)}; without a file, {}.

    UserError, in one line, for a file that cannot be read or run, that defines no op or half a pair, whose names or
    signatures are nearly but not quite the library's, and for a pair that computes something else.
    """
    if path is None:
        return {}
    from minild.engine.table import OPS
    from minild.engine.trial import require_same

    with without_warnings(), _running(path):
        functions = _functions(_run(path))
        for name in functions:
            _require_known(path, name, functions, OPS)
        own = {name: (functions[name], functions[f"{name}_backward"]) for name in functions if name in OPS}
        if not own:
            raise UserError(f"{path} defines no op: write a pair such as silu and silu_backward ({_names(OPS)})")
        for name, (op, op_backward) in own.items():
            _require_signature(path, name, op, OPS[name].op, OPS)
            _require_signature(path, f"{name}_backward", op_backward, OPS[name].op_backward, OPS)
        for name, pair in own.items():
            try:
                require_same(name, *pair)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
        return own


@contextlib.contextmanager
def using_own_ops(path, own):
    """Within it every model computes with the pairs `own` of the file `path`; with none of them, as ever."""
    if not own:
        yield
        return
    import minild

    with minild.using(**own), _running(path):
        yield


def with_own_ops(path, own):
    """How a note begins that tells of them: "with my_ops.py (group_norm, silu)"."""
    return f"with {path.name} ({', '.join(own)})"


def _run(path):
    """The file as a module. Not by an importer of Python's: that would leave bytecode beside the reader's file."""
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
    return module


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


def _require_known(path, name, functions, ops):
    """UserError for half a pair, and for a name that was meant to be an op's; other helpers are the reader's affair."""
    op = name.removesuffix("_backward")
    if op in ops:
        twin = op if name != op else f"{op}_backward"
        if twin not in functions:
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
