"""DDPM and DDIM: on data whose best ε is known in closed form, and against a published figure."""

import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import image_generators, to_device, to_host
from minild.diffusion import NoiseSchedule, ddim, ddpm

MEAN, DEVIATION = 0.6, 0.5  # of the data, a Gaussian in every element
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "steps_offset": 0, "set_alpha_to_one": True}


def gaussian_epsilon(schedule):
    """E[ε | z_t] where z_0 ~ N(MEAN, DEVIATION²): linear in z_t."""

    def predict(latents, t):
        alpha_bar = schedule.alpha_bar(t)
        variance = alpha_bar * DEVIATION**2 + 1 - alpha_bar
        return (latents - math.sqrt(alpha_bar) * MEAN) * (math.sqrt(1 - alpha_bar) / variance)

    return predict


def sample(sampler, schedule, latents, steps, **settings):
    return list(sampler(gaussian_epsilon(schedule), latents, schedule, steps, **settings))[-1]


def noise(rng, shape=(2, 100, 100, 1)):
    return rng.standard_normal(shape)


def moments_of_ddpm(schedule, steps):
    """Mean and variance after each step, from the joint Gaussian of (z_prev, z_t) given ẑ_0: numbers only."""
    mean, variance, stride = 0.0, 1.0, 1000 // steps
    for t in schedule.timesteps(steps):
        a = schedule.alphas_cumprod[t]
        b = schedule.alphas_cumprod[t - stride] if t >= stride else 1.0
        total = a * DEVIATION**2 + 1 - a
        # ẑ_0 = E[z_0 | z_t] by the regression of z_0 on z_t
        slope = math.sqrt(a) * DEVIATION**2 / total
        # z_prev ~ N(√b z_0, 1 - b), seen as z_t = √(a/b) z_prev + noise of variance 1 - a/b: a Kalman gain
        gain = (1 - b) * math.sqrt(a / b) / (1 - a)
        of_clean = math.sqrt(b) - gain * math.sqrt(a)
        extra = (1 - b) - gain * math.sqrt(a / b) * (1 - b)
        mean = gain * mean + of_clean * (MEAN + slope * (mean - math.sqrt(a) * MEAN))
        variance = (gain + of_clean * slope) ** 2 * variance + extra
    return mean, variance


def assert_gaussian(z, mean, variance):
    """Within four standard errors."""
    assert z.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / z.size))
    assert z.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / z.size))


@pytest.mark.parametrize("steps", [7, 50])
@pytest.mark.parametrize("config", [{}, LINEAR])
def test_ddpm_has_the_moments_of_its_equations(rng, steps, config):
    schedule = NoiseSchedule(config)
    z = sample(ddpm, schedule, noise(rng), steps, generators=image_generators(0, 2))
    assert_gaussian(z, *moments_of_ddpm(schedule, steps))


def test_ddpm_in_all_steps_draws_from_the_data(rng):
    schedule = NoiseSchedule(LINEAR)
    z = sample(ddpm, schedule, noise(rng), 1000, generators=image_generators(0, 2))
    assert z.mean() == pytest.approx(MEAN, abs=0.015)
    assert z.std() == pytest.approx(DEVIATION, abs=0.015)


def test_ddim_carries_noise_to_the_data_without_a_draw(rng):
    """The probability flow of a Gaussian moves z_T = u to MEAN + DEVIATION · u."""
    u = noise(rng, (2, 6, 4, 3))
    z = sample(ddim, NoiseSchedule(LINEAR), u, 1000)
    np.testing.assert_allclose(z, MEAN + DEVIATION * u, atol=0.02)


def ddim_by_hand(z, betas, timesteps, last_alpha_bar, model):
    """One element after another, from the two sentences of the paper: predict z_0, then noise it again to z_prev."""
    alpha_bar = [math.prod(1 - betas[: t + 1]) for t in range(1000)]
    result = []
    for value in z.reshape(-1):
        for t, before in zip(timesteps, [*timesteps[1:], None]):
            epsilon = model(value, t)
            clean = (value - (1 - alpha_bar[t]) ** 0.5 * epsilon) / alpha_bar[t] ** 0.5
            previous = last_alpha_bar if before is None else alpha_bar[before]
            value = previous**0.5 * clean + (1 - previous) ** 0.5 * epsilon
        result.append(value)
    return np.reshape(result, z.shape)


def test_ddim_gives_the_references_sum():
    """diffusers' own test of its DDIM: model x · t / (t + 1), ten steps. (Its clipping of ẑ_0 never acts here.)"""
    start = (np.arange(768) / 768).reshape(3, 8, 8, 4).transpose(3, 1, 2, 0).astype("f")
    z = list(ddim(lambda x, t: x * (t / (t + 1)), start, NoiseSchedule(LINEAR), 10))[-1]
    assert z.dtype == np.float32  # t is a plain number, which does not promote
    assert np.abs(z).sum() == pytest.approx(172.0067, abs=1e-2)


def test_ddim_by_hand_at_stable_diffusions_settings(rng):
    z = noise(rng, (2, 3, 2, 2))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    expected = ddim_by_hand(z, betas, range(981, 0, -20), 1 - betas[0], lambda x, t: x * t / (t + 1) + 0.1)
    trace = list(ddim(lambda x, t: x * (t / (t + 1)) + 0.1, z, NoiseSchedule(), 50))
    assert len(trace) == 50
    np.testing.assert_allclose(trace[-1], expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [4, 50])
def test_ddim_at_eta_one_is_ddpm(rng, steps):
    schedule, u = NoiseSchedule(LINEAR), noise(rng, (2, 6, 4, 3))
    first = sample(ddim, schedule, u, steps, generators=image_generators(5, 2), eta=1.0)
    second = sample(ddpm, schedule, u, steps, generators=image_generators(5, 2))
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_half_of_eta_is_half_the_deviation_of_the_added_noise(rng):
    schedule, u = NoiseSchedule(LINEAR), np.zeros((1, 100, 100, 1))

    def predict(latents, t):
        return 0 * latents

    spreads = [next(ddim(predict, u, schedule, 10, image_generators(0, 1), eta)).std() for eta in (1.0, 0.5)]
    a, b = schedule.alpha_bar(900), schedule.alpha_bar(800)
    assert spreads[0] == pytest.approx(math.sqrt((1 - b) / (1 - a) * (1 - a / b)), rel=0.03)
    assert spreads[1] == pytest.approx(spreads[0] / 2, rel=1e-6)


@pytest.mark.parametrize(("sampler", "settings"), [(ddpm, {}), (ddim, {}), (ddim, {"eta": 0.7})])
def test_on_every_device_alone_or_in_a_batch(device, rng, sampler, settings):
    u = noise(rng, (3, 4, 6, 2)).astype("f")
    schedule = NoiseSchedule()
    expected = sample(sampler, schedule, u, 10, generators=image_generators(5, 3), **settings)
    alone = sample(sampler, schedule, u[1:2], 10, generators=image_generators(6, 1), **settings)
    np.testing.assert_array_equal(alone[0], expected[1])
    before = to_device(u, device)
    with count_synchronisations() as waits:
        z = sample(sampler, schedule, before, 10, generators=image_generators(5, 3), **settings)
    assert waits.reasons == []
    assert z.dtype == np.float32
    np.testing.assert_allclose(to_host(z), expected, atol=1e-5)
    np.testing.assert_array_equal(to_host(before), u)  # the caller's noise is not written to
