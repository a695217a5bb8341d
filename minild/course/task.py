"""What a task is: the function of the library that it stands for, the arguments it is tried on, how it is called."""

import importlib
import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Misuse(Exception):
    """What a function returned is not of the kind that was asked for; the message says what is expected."""


class Task(NamedTuple):
    """An exercise. Its number is "chapter.place"; everything else is told by the function that it stands for."""

    number: str
    title: str
    stands_for: str  # "module:function" or "module:Class.method"
    points: int
    cases: Callable  # (rng, dtype) -> a list of {argument: value}, values drawn from the numpy Generator rng
    run: Callable  # (function, arguments) -> {output: value}: calls it, as one of the adaptors below
    uses: tuple = ()  # what of minild may be called; all the rest is withheld while the task is graded
    note: str = ""  # what the stub says after its brief
    name: str = ""  # of the function in the student's file, where it is not that of the library
    graded: tuple = ()  # the outputs that count (default: all)
    faults: dict = {}  # hint -> a function that makes that common fault
    devices: tuple = ("cpu",)

    @property
    def chapter(self):
        return int(self.number.split(".")[0])

    @property
    def function_name(self):
        return self.name or self.stands_for.split(":")[1]

    @property
    def returns(self):
        """What the function must return, as a sentence for its stub; the adaptor that calls it knows."""
        return self.run.returns

    @property
    def reference(self):
        """The library's function."""
        return resolve(self.stands_for)

    @property
    def signature(self):
        """The inspect.Signature that is asked: the library's, without the parameters that no trial gives."""
        given = {name for arguments in self.cases(np.random.default_rng(0), np.dtype("float64")) for name in arguments}
        parameters = inspect.signature(self.reference).parameters.values()
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = [p for p in parameters if p.kind not in variable and (p.default is p.empty or p.name in given)]
        return inspect.Signature(required)


def require_signature(function, name, asked):
    """Misuse unless `function` can be called with the parameters of the Signature `asked`, by their names."""
    if not callable(function):
        got = "None" if function is None else _kind(function)
        raise Misuse(f"expected a function {name}{asked}, got {got}")
    expected = f"expected {name}{asked}"
    own = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of one that is written in C
        raise Misuse(f"{expected}, got {own}") from None
    try:
        signature.bind(**dict.fromkeys(asked.parameters))
    except TypeError:
        raise Misuse(f"{expected}, got {own}{signature}") from None


def resolve(path):
    """The object that a path such as "minild.ops.conv:conv2d" or "minild.nn.layers:Linear.forward" names."""
    module, _, names = path.partition(":")
    value = importlib.import_module(module)
    for name in names.split("."):
        value = getattr(value, name)
    return value


def returning(sentence):
    """A decorator: the sentence is what a stub says of the return value, as the adaptor's attribute `returns`."""

    def note(adaptor):
        adaptor.returns = sentence
        return adaptor

    return note


@returning("Return the pair (y, cache). The cache is what your own backward would need; here None will do.")
def op(function, arguments):
    """function(...) -> (y, cache): y counts, the cache is the student's own affair."""
    return {"y": _pair(function(**arguments))[0]}


def value(name):
    """function(...) -> one value."""

    @returning(f"Return {name}, and nothing beside it.")
    def run(function, arguments):
        return {name: function(**arguments)}

    return run


def gradients(*names):
    """function(dy, cache) -> the gradients of these names, in this order."""

    @returning(f"Return {names[0]}." if len(names) == 1 else f"Return the tuple ({', '.join(names)}).")
    def run(function, arguments):
        result = function(**arguments)
        return dict(zip(names, _several(result, names)))

    return run


@returning("Yield the latents after every step, and return nothing: the function is a generator.")
def steps(function, arguments):
    """A generator: all that it yields."""
    made = function(**arguments)
    if not isinstance(made, types.GeneratorType):
        raise Misuse(f"expected a generator (yield the latents after every step), got {_kind(made)}")
    return {f"step {i + 1}": latents.copy() for i, latents in enumerate(made)}


def method_gradients(*names):
    """method(self, dy, cache) -> gradients of the inputs; the parameters' gradients are added up in the module."""

    @returning(gradients(*names).returns)
    def run(function, arguments):
        module = arguments["self"]
        outputs = gradients(*names)(function, arguments)
        return outputs | {f"gradient of {name}": p.grad for name, p in module.named_parameters()}

    return run


def _pair(result):
    if not isinstance(result, tuple) or len(result) != 2:
        raise Misuse(f"expected the pair (y, cache), got {_kind(result)}")
    return result


def _several(result, names):
    wanted = ", ".join(names)
    if len(names) == 1:
        return [result[0] if isinstance(result, tuple) and len(result) == 1 else result]
    if not isinstance(result, (tuple, list)) or len(result) != len(names):
        raise Misuse(f"expected the {len(names)} values {wanted}, got {_kind(result)}")
    return result


def _kind(value):
    if value is None:
        return "None: is a return missing?"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    name = type(value).__name__
    article = "an" if name[0] in "aeio" else "a"
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"{article} {name}"


def arrays_in(value, path="") -> list[tuple[str, Any]]:
    """(path, array) of every array in arguments: in dicts, tuples, lists, caches and modules, always in one order."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return [(path, value)]
    if hasattr(value, "named_parameters"):
        return [(f"{path}.{name}", parameter.data) for name, parameter in value.named_parameters()]
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (tuple, list)):
        parts = zip(getattr(value, "_fields", range(len(value))), value)
    else:
        return []
    return [found for name, part in parts for found in arrays_in(part, f"{path}.{name}" if path else str(name))]
