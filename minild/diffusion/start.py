"""Where a sampler begins: at noise alone, or late, at a picture's latents that are noised as far as its step there."""

import math
from typing import Any, NamedTuple

from minild.diffusion.sigmas import initial_scale


class Start(NamedTuple):
    """The first `skip` steps of a sampler are left out, and z = √ᾱ z_0 + √(1 - ᾱ) ε of the next stands for them.

    clean  z_0, (N, h, w, c), where the noise is; None: all steps are taken, from ε alone
    skip   how many steps are left out

    (SDEdit, Meng et al. 2021, arXiv 2108.01073.)
    """

    clean: Any = None
    skip: int = 0

    def of(self, rows):
        """That of some of the pictures."""
        return self if self.clean is None else self._replace(clean=self.clean[rows])

    def latents(self, noise, alpha_bar):
        """z (N, h, w, c) at the first step's ᾱ, from unit-variance noise."""
        if self.clean is None:
            return noise
        return math.sqrt(alpha_bar) * self.clean + math.sqrt(1 - alpha_bar) * noise

    def levels(self, noise, schedule, sigmas):
        """x = z_0 + σ ε (N, h, w, c) at the first step of a sampler of these σ; of noise alone its `initial_scale`."""
        if self.clean is None:
            return noise * initial_scale(schedule, sigmas)
        return self.clean + sigmas[self.skip] * noise


NOISE = Start()
