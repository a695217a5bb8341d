"""Rectified flow: straight lines from pictures to noise, instead of a noise schedule's curves."""

import math

import numpy as np

from minild.diffusion.schedule import NoiseSchedule, require_steps, require_supported, require_train_steps
from minild.errors import UserError

FLOW_CLASS = "FlowMatchEulerDiscreteScheduler"  # the reference's, of a folder whose model is a rectified flow
FLOW_PREDICTION = "flow_prediction"


class FlowSchedule:
    """z_t = (1 - t) z_0 + t ε, t from 0 to 1, and the model says v = dz_t / dt = ε - z_0.

    (Liu et al. 2022, arXiv 2209.03003, equation 1; Lipman et al. 2022, arXiv 2210.02747; as in Stable Diffusion 3,
    arXiv 2403.03206, section 2.) Built from the fields of a scheduler_config.json of FLOW_CLASS. The reference calls t
    σ, and the U-Net is given T t.

    shift: how far times are moved towards the noise, see `shifted`; 1 is not at all, 3 that of Stable Diffusion 3.
    """

    defaults = {"num_train_timesteps": 1000, "shift": 1.0}

    def __init__(self, config=None, given=None):
        """config: fields; `defaults` stand for those it lacks. given: what the user's file states. UserError for what
        is not supported.
        """
        config = config or {}
        if given is None:
            require_supported(config, "scheduler", "flow-euler")
        self.given = {"_class_name": FLOW_CLASS, **self.defaults, **config} if given is None else given
        known = self.defaults | {k: v for k, v in config.items() if k in self.defaults}
        self.config = known | {"prediction_type": FLOW_PREDICTION}
        self.train_steps, self.shift = known["num_train_timesteps"], known["shift"]
        require_train_steps(self.train_steps)
        if isinstance(self.shift, bool) or not isinstance(self.shift, (int, float)) or not 0 < self.shift < math.inf:
            raise UserError(f"scheduler: shift must be a number above 0, got {self.shift!r}")

    def shifted(self, t):
        """s t / (1 + (s - 1) t) with s = `shift`: of large pictures, more of the time is spent where noise is high.

        (Stable Diffusion 3, equation 23, with s = √(m / n).)
        """
        return self.shift * t / (1 + (self.shift - 1) * t)

    def training_levels(self, u):
        """The times of u (N,) in [0, 1) -> T t, (N,); 1 - t and t, (N, 1, 1, 1): float32 on the host."""
        t = self.shifted(u)
        levels = ((1 - t).reshape(-1, 1, 1, 1), t.reshape(-1, 1, 1, 1))
        return (self.train_steps * t).astype(np.float32), *(level.astype(np.float32) for level in levels)

    def times(self, steps):
        """1 = t_0 > ... > t_N = 0 that a sampler of N steps visits, a list of N + 1 numbers.

        As the reference places them: N equal distances from 1 to the smallest time of training, which is shifted, and
        then all are shifted once more.
        """
        self.require_steps(steps)
        smallest = self.shifted(1 / self.train_steps)
        return [*self.shifted(np.linspace(1.0, smallest, steps)).tolist(), 0.0]

    def require_steps(self, steps):
        """UserError unless 1 <= steps <= T."""
        require_steps(steps, self.train_steps)


def schedule_of(fields):
    """The FlowSchedule or NoiseSchedule of the fields of a scheduler_config.json, as its "_class_name" says."""
    return (FlowSchedule if fields.get("_class_name") == FLOW_CLASS else NoiseSchedule)(fields)
