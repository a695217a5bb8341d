"""What leads each picture of a training: its captions, its class, or a picture; and how often that is left out.

All conditions are one idea. For each picture there are K values, an array (N, K, ...), of which a visit shows one; and
there is a value that stands for nothing. Showing that now and then is what classifier-free guidance needs (Ho &
Salimans 2022, arXiv 2207.12598).
"""

import numpy as np

from minild.nn.module import Module

EARLY = 0.3  # the share of a training that goes to where things stand, before the rest sees to what they look like


class Choices:
    """The values of one part of the condition.

    field   of models.Condition
    values  (N, K, ...): the K values of each picture; token ids where a text encoder makes the context of them
    nothing (...): what stands for no value; None: it is never left out
    first   how often the first of several is shown while `progress` is under EARLY; None: all alike
    """

    def __init__(self, field, values, nothing=None, first=None):
        self.field, self.values, self.nothing, self.first = field, values, nothing, first

    def choose(self, rng, rows, progress):
        """One value of each of these pictures, a copy."""
        K = self.values.shape[1]
        chosen = rng.integers(K, size=len(rows))
        if self.first is not None and progress < EARLY and K > 1:
            others = rng.integers(1, K, size=len(rows))
            chosen = np.where(rng.random(len(rows)) < self.first, 0, others)
        return self.values[rows, chosen]


class Conditioning:
    """All parts of a condition. One chance in 1 / `dropout` leaves them out, all those together that can be."""

    def __init__(self, parts, dropout=0.1):
        self.parts, self.dropout = parts, dropout

    @property
    def fields(self):
        """The fields of models.Condition that `batch` gives, in its order."""
        return [part.field for part in self.parts]

    def batch(self, rng, rows, progress):
        """What leads the pictures `rows` at this visit: a list of host arrays, one a part."""
        values = self._values(rng, rows, progress)
        dropped = rng.random(len(rows)) < self.dropout
        for part, value in zip(self.parts, values):
            if part.nothing is not None:
                value[dropped] = part.nothing
        return values

    def _values(self, rng, rows, progress):
        return [part.choose(rng, rows, progress) for part in self.parts]


class Augmented(Conditioning):
    """A Conditioning whose last part is pictures: each visit adds noise of a random level, and tells the level.

    augmentation   a pipelines.low_resolution.Augmentation

    The level is the class label, and stays where the picture is left out: drawing, too, tells it of nothing.
    """

    def __init__(self, parts, augmentation, dropout=0.1):
        super().__init__(parts, dropout)
        self.augmentation = augmentation

    @property
    def fields(self):
        """Those of the parts, and the levels' after them."""
        return [*super().fields, "class_labels"]

    def _values(self, rng, rows, progress):
        *others, pictures = super()._values(rng, rows, progress)
        levels = rng.integers(self.augmentation.highest + 1, size=len(rows))
        noise = rng.standard_normal(pictures.shape, dtype=np.float32)
        return [*others, self.augmentation.add(pictures, noise, levels), levels]


class Frozen(Module):
    """A module that is used but not trained: nothing sees its parameters, and its backward ends there."""

    def __init__(self, module):
        self.held = (module,)  # modules are not looked for in tuples

    def forward(self, *arguments):
        """-> what the module makes of them."""
        return self.held[0](*arguments), None

    def backward(self, dy, cache):
        """Nothing: what comes before it is not trained either."""
