"""What every sampler promises of the latents that it yields (minild.diffusion): one scale, and what is mixed in."""

import math

import numpy as np
import pytest

from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.diffusion import NoiseSchedule
from minild.diffusion.sigmas import training_sigmas
from minild.errors import UserError
from minild.random import image_generators

# These take random numbers at every step.
DRAWING = ("ddpm", "euler-a", "dpm2-a", "dpmpp-2m-sde", "dpmpp-3m-sde", "dpm-solver-sde", "lcm")
DETERMINISTIC = [name for name in SAMPLERS if name not in DRAWING]
STEPS = 12


def levels(schedule, t):
    """(√ᾱ, √(1 - ᾱ)) at t, which some samplers make a fraction."""
    sigma = float(np.interp(t, np.arange(schedule.train_steps), training_sigmas(schedule)))
    return 1 / math.hypot(sigma, 1), sigma / math.hypot(sigma, 1)


def beginning(name, schedule):
    """(√ᾱ, √(1 - ᾱ)) of the latents that a sampler begins with."""
    visited = []

    def predict(z, t):
        visited.append(t)
        return z

    next(SAMPLERS[name](predict, np.ones((1, 1, 1, 1)), schedule, STEPS))
    return levels(schedule, 0 if name == "ddim-inverse" else visited[0])


def shares(z, clean, noise):
    """(a, b) of z = a z_0 + b ε, and what of z is neither."""
    both = np.stack([clean.ravel(), noise.ravel()], axis=1)
    (a, b), *_ = np.linalg.lstsq(both, z.ravel())
    return a, b, np.abs(both @ (a, b) - z.ravel()).max()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_of_an_exact_model_all_latents_are_the_picture_and_the_noise(rng, name, prediction):
    """√ᾱ z_0 + √(1 - ᾱ) ε at every step, and ᾱ rises from step to step."""
    if prediction == "v_prediction" and name in ("pndm", "dpm2", "dpmpp-2m-karras", "ddim-inverse"):
        pytest.skip("asks for v at a timestep that is not quite the latents' own")
    schedule = NoiseSchedule({"prediction_type": prediction})
    clean, noise = rng.standard_normal((2, 1, 6, 5, 3))
    signal, spread = beginning(name, schedule)

    def predict(z, t):
        now, then = levels(schedule, t)
        return {"epsilon": noise, "sample": clean, "v_prediction": now * noise - then * clean}[prediction]

    trace = list(SAMPLERS[name](predict, signal * clean + spread * noise, schedule, STEPS))
    found = [shares(z, clean, noise) for z in trace]
    assert len(trace) == STEPS
    assert max(rest for _, _, rest in found) < 1e-6
    np.testing.assert_allclose([math.hypot(a, b) for a, b, _ in found], 1, atol=1e-6)
    rising = np.diff([a for a, _, _ in found]) > 0
    assert rising.all() if name != "ddim-inverse" else not rising.any()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_latents_of_unit_variance_data_have_unit_variance_at_every_step(rng, name, spacing):
    """Their noising changes nothing, and E[z_0 | z_t] = √ᾱ z_t; a consistency model says z_t itself."""
    if (name, spacing) == ("ddim-inverse", "linspace"):
        pytest.skip("ddim-inverse refuses the spacing linspace")
    schedule = NoiseSchedule({"prediction_type": "sample", "timestep_spacing": spacing})

    def predict(z, t):
        return z if name == "lcm" else levels(schedule, t)[0] * z

    u = rng.standard_normal((2, 60, 60, 1))
    variances = [z.var() for z in SAMPLERS[name](predict, u, schedule, 50, image_generators(0, 2))]
    # Of 50 steps; see tests/diffusion/test_samplers.py for the noise that stays with order three.
    np.testing.assert_allclose(variances, 1, atol=0.35 if name == "dpmpp-3m-sde" else 0.11)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", ["lms", "euler", "heun", "dpm2"])
def test_the_last_of_those_in_sigma_is_the_sample_as_it_is(rng, name, final):
    """x = z_0 + σ ε, for an exact model, at the final σ: not divided by √(σ² + 1)."""
    schedule = NoiseSchedule({"final_sigmas_type": final})
    clean, noise = rng.standard_normal((2, 1, 6, 5, 3))
    sigma = float(training_sigmas(schedule)[0]) if final == "sigma_min" else 0
    signal, spread = beginning(name, schedule)
    *_, z = SAMPLERS[name](lambda z, t: noise, signal * clean + spread * noise, schedule, STEPS)
    np.testing.assert_allclose(z, clean + sigma * noise, atol=1e-6)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_mix_is_told_the_level_of_the_latents(rng, name):
    if name == "ddim-inverse":
        pytest.skip("ddim-inverse refuses to mix anything in")
    schedule = NoiseSchedule()
    clean, noise = rng.standard_normal((2, 1, 6, 5, 3))
    signal, spread = beginning(name, schedule)
    told = []

    def mix(z, alpha_bar):
        told.append(alpha_bar)
        np.testing.assert_allclose(z, math.sqrt(alpha_bar) * clean + math.sqrt(1 - alpha_bar) * noise, atol=1e-6)
        return z

    list(SAMPLERS[name](lambda z, t: noise, signal * clean + spread * noise, schedule, STEPS, mix=mix))
    assert len(set(told)) == STEPS and told == sorted(told)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ddim-inverse"}))
def test_what_is_mixed_in_is_yielded_and_taken_up_by_the_next_step(rng, name, spacing):
    mixed, seen = [], []

    def predict(z, t):
        seen.append(z)
        return np.tanh(z)

    def mix(z, alpha_bar):
        mixed.append(rng.standard_normal(z.shape))
        return mixed[-1]

    schedule, u = NoiseSchedule({"timestep_spacing": spacing}), rng.standard_normal((1, 4, 3, 2))
    trace = list(SAMPLERS[name](predict, u, schedule, STEPS, image_generators(0, 1), mix=mix))
    if name == "unipc":  # whose corrector mixes before it goes on
        np.testing.assert_allclose(trace, [*mixed[::2]], atol=1e-12)
    else:
        np.testing.assert_allclose(trace, mixed, atol=1e-12)
    for z in trace[:-1]:
        assert any(np.allclose(z, each, atol=1e-12) for each in seen)


def test_ddim_inverse_mixes_nothing_in(rng):
    u = rng.standard_normal((1, 4, 3, 2))
    with pytest.raises(UserError, match="ddim-inverse ends in noise: there is nothing to mix in"):
        next(SAMPLERS["ddim-inverse"](lambda z, t: z, u, NoiseSchedule(), STEPS, mix=lambda z, alpha_bar: z))
