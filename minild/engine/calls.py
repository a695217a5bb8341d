"""Calling an op: the table is asked once, and what comes back carries its own backward."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from minild.engine.choice import current
from minild.engine.memory import in_inference
from minild.engine.table import NAMES, OPS


class Call(NamedTuple):
    """What a forward left behind: the backward of the implementation that computed it, and that one's cache."""

    op_backward: Callable
    cache: Any

    def backward(self, dy):
        """dy like y -> the gradients, as the textbook's backward returns them."""
        return self.op_backward(dy, self.cache)


def run(op, *arguments, **settings):
    """y, call: what `op`, a function of minild.ops, gives for the arguments, by the implementation that is in force.

    call.backward(dy) gives the gradients. Under `inference` the call is None, so that no cache outlives it.
    Raises what the op raises for arguments that do not fit; ValueError for a function that is not in the table.
    """
    keep = not in_inference()
    forward, backward = implementation(op, arguments, settings, keep)
    result = forward(*arguments, **settings)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"{op.__name__}: an op must return y, cache, and yours returned {type(result).__name__}")
    y, cache = result
    return y, Call(backward, cache) if keep else None


def implementation(op, arguments, settings, keep=True):
    """(forward, backward) that `run` takes for these arguments.

    Unless `keep`, a forward whose backward is never called.
    """
    name = NAMES.get(op)
    if name is None:
        raise ValueError(f"{op!r} is no op of minild.engine.table: call it, and its backward, yourself")
    choice, row = current(), OPS[name]
    row.require(*arguments, **settings)
    if name in choice.own:
        return choice.own[name]
    if choice.replaces(name):
        return _in_parts(row)
    fast = None if choice.textbook else row.implementation(arguments, settings)
    if fast is None:
        return row.op, row.op_backward
    if fast.inference and not keep:
        return fast.inference, None
    return fast.op, fast.op_backward


def _in_parts(row):
    """The textbook's composite, each of its parts called by whatever is in force for it."""
    forward = {part: partial(run, OPS[part].op) for part in row.parts}
    backward = {f"{part}_backward": _backward for part in row.parts}
    return partial(row.op, **forward), partial(row.op_backward, **backward)


def _backward(dy, call):
    return call.backward(dy)
