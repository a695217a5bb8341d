"""A late start, in every sampler: a picture's latents, noised, stand for the steps that are left out."""

import math

import numpy as np
import pytest

from diffusion.test_latents import DETERMINISTIC, STEPS, levels, shares
from minild.diffusion import DIFFUSION_SAMPLERS, SAMPLERS, FlowSchedule, NoiseSchedule, Start
from minild.errors import UserError
from minild.random import image_generators

FORWARD = [name for name in SAMPLERS if name != "ddim-inverse"]
FORGETFUL = ["ddim", "euler", "heun", "dpm2", "flow-euler"]  # each step knows only where it is


def schedule_for(name, **fields):
    return NoiseSchedule(fields) if name in DIFFUSION_SAMPLERS else FlowSchedule()


def calls(name, noise, start, **fields):
    """[(z, t)] of every call of the model, which says 0.1 z, and the latents that the sampler yields."""
    made = []

    def predict(z, t):
        made.append((z, t))
        return 0.1 * z

    schedule, generators = schedule_for(name, **fields), image_generators(0, len(noise))
    return made, list(SAMPLERS[name](predict, noise, schedule, STEPS, generators, start=start))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", FORWARD)
def test_it_begins_where_the_whole_run_is_after_as_many_steps(rng, name, spacing):
    clean, noise = rng.standard_normal((2, 1, 4, 4, 2))
    whole, trace = calls(name, noise, Start(), timestep_spacing=spacing)
    for skip in (0, 3, STEPS - 1):
        made, late = calls(name, noise, Start(clean, skip), timestep_spacing=spacing)
        assert len(trace) == STEPS and len(late) == STEPS - skip
        z, t = made[0]
        assert t in [t for _, t in whole]
        left = {call_t for _, call_t in whole if call_t > t}
        assert len(left) >= skip and all(call_t <= t for _, call_t in made)
        if name in DIFFUSION_SAMPLERS:
            signal, spread = levels(schedule_for(name), t)
        else:
            signal, spread = 1 - t / 1000, t / 1000
        if name != "dpmpp-2m-karras":  # its timesteps are rounded, its levels not
            np.testing.assert_allclose(z, signal * clean + spread * noise, rtol=1e-9)


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("name", sorted(set(DETERMINISTIC) - {"ddim-inverse"}))
def test_of_an_exact_model_it_leads_to_the_picture_too(rng, name, prediction):
    """Every order that the late steps may have solves the straight way exactly."""
    schedule = NoiseSchedule({"prediction_type": prediction})
    clean, noise = rng.standard_normal((2, 1, 6, 5, 3))

    def predict(z, t):
        return {"epsilon": noise, "sample": clean}[prediction]

    *_, whole = SAMPLERS[name](predict, noise, schedule, STEPS, start=Start(clean, 0))
    for skip in range(1, STEPS):
        trace = list(SAMPLERS[name](predict, noise, schedule, STEPS, start=Start(clean, skip)))
        assert max(shares(z, clean, noise)[2] for z in trace) < 1e-6
        np.testing.assert_allclose(trace[-1], whole, atol=1e-6)


@pytest.mark.parametrize("name", FORGETFUL)
def test_from_the_whole_runs_latents_it_goes_on_as_the_whole_run(rng, name):
    noise, clean = rng.standard_normal((2, 1, 4, 4, 2))
    _, whole = calls(name, noise, Start())
    told = []

    def level(z, alpha_bar):
        told.append(alpha_bar)
        return z

    schedule = schedule_for(name)
    list(SAMPLERS[name](lambda z, t: 0.1 * z, noise, schedule, STEPS, image_generators(0, 1), mix=level))
    skip = 5
    signal, spread = math.sqrt(told[skip - 1]), math.sqrt(1 - told[skip - 1])
    needed = (whole[skip - 1] - signal * clean) / spread
    if name == "flow-euler":  # whose clean latents are noised by (1 - t) and t, not of unit variance
        t = schedule.times(STEPS)[skip]
        needed = (math.hypot(1 - t, t) * whole[skip - 1] - (1 - t) * clean) / t
    _, late = calls(name, needed, Start(clean, skip))
    np.testing.assert_allclose(late, whole[skip:], rtol=1e-6, atol=1e-9)


def test_ddim_inverse_is_refused(rng):
    clean, noise = rng.standard_normal((2, 1, 4, 4, 2))
    with pytest.raises(UserError, match="sampler ddim-inverse begins with a picture"):
        calls("ddim-inverse", noise, Start(clean, 3))


def test_some_of_the_pictures(rng):
    clean = rng.standard_normal((3, 2, 2, 1))
    assert Start().of(slice(0, 2)) == Start()
    part = Start(clean, 4).of(slice(1, 3))
    assert part.skip == 4 and np.array_equal(part.clean, clean[1:])
