"""minild.diffusion.sigmas: levels that end where they should, and the timesteps of levels in and out of order."""

import itertools

import numpy as np
import pytest

from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.diffusion import NoiseSchedule
from minild.diffusion.sigmas import (
    initial_scale,
    karras_sigmas,
    require_falling,
    sigma_steps,
    solver_steps,
    timesteps_of,
    training_sigmas,
)
from minild.errors import UserError
from minild.random import image_generators

SCHEDULES = [
    {"beta_schedule": name, "num_train_timesteps": steps, "beta_end": end}
    for name, steps, end in itertools.product(
        ("linear", "scaled_linear", "squaredcos_cap_v2"), (50, 100, 1000), (0.012, 0.02)
    )
]
ZERO_SNR = {"rescale_betas_zero_snr": True, "beta_schedule": "linear", "beta_end": 0.02}  # whose σ climbs beyond 4096


@pytest.mark.parametrize("config", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 5, 12, 20])
def test_karras_levels_end_at_the_last_bit_where_they_were_told(config, steps):
    every = training_sigmas(NoiseSchedule(config))
    sigmas = karras_sigmas(every[-1], every[0], steps)
    assert (sigmas[0], sigmas[-1]) == (every[-1], every[0])
    assert len(sigmas) == steps and (np.diff(sigmas) < 0).all()
    assert karras_sigmas(every[-1], every[0], 1) == [every[-1]]


@pytest.mark.parametrize("config", SCHEDULES)
def test_a_last_level_that_comes_twice_changes_nothing(config, rng):
    """Karras' last level is the schedule's lowest, and so is "sigma_min": equal, whatever the schedule rounds to."""
    schedule = NoiseSchedule(config | {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"})
    latents = rng.standard_normal((1, 2, 2, 1), np.float32)
    for name, settings in (("dpmpp-2m", {}), ("dpmpp-2m-sde", {}), ("unipc", {"lower_order_final": False})):
        for steps in (5, 12, 20):
            levels = solver_steps(schedule, steps)[1]
            assert levels[-1] == levels[-2]
            generators = image_generators(1, 1)
            *_, before, z = SAMPLERS[name](lambda z, t: 0.3 * z, latents, schedule, steps, generators, **settings)
            assert np.isfinite(z).all()
            if name == "dpmpp-2m-sde":
                np.testing.assert_array_equal(before, z)


def test_timesteps_of_the_schedules_own_levels_are_their_own():
    for config in SCHEDULES:
        schedule = NoiseSchedule(config)
        every = training_sigmas(schedule)
        np.testing.assert_allclose(timesteps_of(every, schedule), np.arange(len(every)), atol=1e-9)
        half = np.sqrt(every[3] * every[4])
        np.testing.assert_allclose(timesteps_of(np.array([half, 1e-9, 1e9]), schedule), [3.5, 0, len(every) - 1])


def test_levels_that_climb_beyond_their_end():
    """ᾱ_(T-1) of zero terminal SNR is taken for 2^-24, that of earlier timesteps can be less."""
    schedule = NoiseSchedule(ZERO_SNR)
    every = training_sigmas(schedule)
    assert every[-1] < every[-2]
    [t] = timesteps_of(every[-1:], schedule)
    assert np.interp(t, np.arange(1000), every) == pytest.approx(every[-1], rel=1e-2) and t < 998
    linspace = NoiseSchedule(ZERO_SNR | {"timestep_spacing": "linspace"})
    sigmas = sigma_steps(linspace, 1000)[1]
    assert initial_scale(linspace, sigmas) == max(sigmas) > sigmas[0]


def test_no_noise_leads_to_a_higher_level(rng):
    require_falling([3.0, 2.0, 2.0, 0.0], "x")
    with pytest.raises(UserError, match=r"^sampler x: its noise levels rise from σ = 2 to 3, .*use another sampler$"):
        require_falling([2.0, 3.0, 0.0], "x")
    schedule = NoiseSchedule(ZERO_SNR | {"timestep_spacing": "linspace", "prediction_type": "v_prediction"})
    latents = rng.standard_normal((1, 2, 2, 1), np.float32)
    for name in ("euler-a", "dpmpp-2m-sde"):
        with pytest.raises(UserError, match="its noise levels rise"):
            list(SAMPLERS[name](lambda z, t: z, latents, schedule, 900, image_generators(1, 1)))
