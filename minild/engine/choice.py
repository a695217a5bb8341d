"""Which implementation of each op is in force: the fast ones of the table, the textbook, or the reader's own."""

import contextlib
import contextvars
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from minild.engine.table import OPS


class Choice(NamedTuple):
    """textbook: leave the table's fast pairs aside. own: {name: (op, op_backward)} of the reader."""

    textbook: bool = False
    own: Mapping = MappingProxyType({})

    def replaces(self, name):
        """Whether the op of that name, or one that it is made of, is the reader's own."""
        return name in self.own or any(self.replaces(part) for part in OPS[name].parts)


FAST = Choice()
_choice = contextvars.ContextVar("choice of ops", default=FAST)


def current():
    """The Choice in force here."""
    return _choice.get()


@contextlib.contextmanager
def using(*words, **own):
    """Within it, models compute with other ops than the table's fast ones: forward and backward, training and drawing.

    with using("textbook"): ...                             every op as minild.ops has it
    with using(group_norm=(mine, mine_backward)): ...       that pair in every layer of every model

    A pair has the contract of the op of that name in minild.ops: mine(x, gamma, beta, groups, eps) -> (y, cache), the
    arguments given by position, and mine_backward(dy, cache) -> its gradients. An op that is made of others
    (group_norm_silu, attention, geglu) is then composed of its parts, yours among them; a pair in the place of such an
    op need not take these. Both forms may be given at once, and `using` may be nested: the inner one adds to the outer,
    and takes nothing back.

    It holds for this thread and the library's own threads and processes. A backward goes with the forward that
    left its cache, whatever is in force when it runs. (A generator that yields within it leaves it in force for whoever
    asked: close `with` before a yield.)
    Raises ValueError for another word, a name that is no op, and what is no pair of functions.
    """
    for word in words:
        if word != "textbook":
            raise ValueError(f"using: unknown {word!r}: expected 'textbook', or name=(op, op_backward)")
    for name, pair in own.items():
        if name not in OPS:
            raise ValueError(f"using: {name!r} is no op, use one of {', '.join(OPS)}")
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(callable, pair))):
            raise ValueError(f"using: {name} must be a pair of functions (op, op_backward), got {pair!r}")
    outer = _choice.get()
    token = _choice.set(Choice(outer.textbook or "textbook" in words, MappingProxyType({**outer.own, **own})))
    try:
        yield
    finally:
        _choice.reset(token)
