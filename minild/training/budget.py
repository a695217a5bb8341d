"""How far a stage has come, by its steps and by the clock."""

import contextlib
import time

from minild.training.ranks import ALONE


def share(seconds, steps, elapsed, taken):
    """How much of so many seconds, and of so many steps, is used up, the larger of the two, in [0, 1]; None counts not.
    """
    used = 0.0 if steps is None else taken / max(1, steps)
    if seconds is not None:
        used = max(used, elapsed / max(1e-9, seconds))
    return min(1.0, used)


class Budget:
    """What a stage may use up: `seconds`, or `steps`; of both, what is used up first ends it.

    taken, elapsed  steps and seconds before a resume
    ranks           the processes that share its steps (ranks.py)
    """

    def __init__(self, seconds=None, steps=None, taken=0, elapsed=0.0, ranks=ALONE):
        self.seconds, self.steps = seconds, steps
        self.taken, self.ranks = taken, ranks
        self._started = time.monotonic() - elapsed

    @classmethod
    def of(cls, minutes, steps, usual):
        """That of so many minutes, or steps; with neither, of the usual minutes."""
        return cls(60 * (usual if minutes is None else minutes) if steps is None else None, steps)

    @property
    def elapsed(self):
        return time.monotonic() - self._started

    @property
    def progress(self):
        """0 at the beginning, 1 once the budget is used up."""
        return share(self.seconds, self.steps, self.elapsed, self.taken)

    @contextlib.contextmanager
    def paused(self):
        """What goes on inside takes no time of it."""
        began = time.monotonic()
        yield
        self._started += time.monotonic() - began

    def agreed(self):
        """The progress by the first rank's clock: all ranks ask at once, before each step."""
        return self.progress if self.seconds is None else self.ranks.broadcast(self.progress)
