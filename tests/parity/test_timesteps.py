"""The timesteps of every class of the reference, for all numbers of steps that there are."""

import numpy as np
import pytest

from minild.diffusion import NoiseSchedule
from minild.diffusion.sigmas import sigma_steps, solver_steps
from parity.reference import diffusers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the reference's own


def on_the_schedule(schedule, steps):
    return schedule.timesteps(steps)


def backwards(schedule, steps):
    return schedule.timesteps(steps)[::-1]


def of_levels(schedule, steps):
    return sigma_steps(schedule, steps)[0]


def of_solvers(schedule, steps):
    return solver_steps(schedule, steps)[0]


CLASSES = {
    "DDPMScheduler": on_the_schedule,
    "DDIMScheduler": on_the_schedule,
    "DDIMInverseScheduler": backwards,
    "PNDMScheduler": on_the_schedule,
    "LMSDiscreteScheduler": of_levels,
    "EulerDiscreteScheduler": of_levels,
    "EulerAncestralDiscreteScheduler": of_levels,
    "HeunDiscreteScheduler": of_levels,
    "DPMSolverMultistepScheduler": of_solvers,
    "DEISMultistepScheduler": of_solvers,
    "UniPCMultistepScheduler": of_solvers,
}


def theirs(scheduler, steps):
    scheduler.set_timesteps(steps)
    if isinstance(scheduler, diffusers.PNDMScheduler):
        return scheduler._timesteps[::-1]  # without those that its first steps visit beside
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        return scheduler.timesteps.numpy()[::2]
    return scheduler.timesteps.numpy()


@pytest.mark.parametrize("train_steps", [1000, 999, 100, 50, 7])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("kind", CLASSES)
def test_for_every_number_of_steps(kind, spacing, train_steps):
    if (kind, spacing) == ("DDIMInverseScheduler", "linspace"):
        pytest.skip("the reference refuses it")
    pytest.importorskip("scipy" if kind == "LMSDiscreteScheduler" else "diffusers")
    fields = {"num_train_timesteps": train_steps, "timestep_spacing": spacing, "steps_offset": 1}
    own = fields | ({"skip_prk_steps": True} if kind == "PNDMScheduler" else {})
    scheduler, schedule = getattr(diffusers, kind)(**own), NoiseSchedule(fields)
    more = 0
    # "leading" has no room for its offset with all steps, and solvers place one more: the reference then visits T.
    most = train_steps - (spacing == "leading") - (CLASSES[kind] is of_solvers and spacing != "trailing")
    for steps in range(1, most + 1):
        expected = theirs(scheduler, steps)
        if spacing == "trailing" and len(expected) > steps:  # its rounding, one timestep more: there is no -1
            assert len(expected) == steps + 1 and -1 in expected
            expected, more = expected[expected >= 0], more + 1
        timesteps = CLASSES[kind](schedule, steps)
        np.testing.assert_allclose(timesteps, expected, rtol=0, atol=1e-4, err_msg=f"{steps} steps")
    assert more == ({1000: 62, 999: 94, 100: 5, 50: 2, 7: 0}[train_steps] if spacing == "trailing" else 0)
