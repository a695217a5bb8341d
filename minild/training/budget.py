"""How far a stage has come, by its steps or by the clock."""

import time

from minild.training.ranks import ALONE


class Budget:
    """What a stage may use up: `seconds`, or `steps`; `taken` steps and `elapsed` seconds were before a resume.

    ranks: the processes that share its steps (ranks.py)
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
        used = self.taken / max(1, self.steps) if self.steps is not None else self.elapsed / max(1e-9, self.seconds)
        return min(1.0, used)

    def agreed(self):
        """The progress by the first rank's clock: all ranks ask at once, before each step."""
        return self.progress if self.steps is not None else self.ranks.broadcast(self.progress)
