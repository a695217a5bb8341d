"""Every sampler on data whose best ε is known in closed form, and DDIM by hand.

(test_reference_sums.py holds them against the reference's figures.)
"""

import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.diffusion import NoiseSchedule, ddim, ddpm
from minild.diffusion.sigmas import training_sigmas
from minild.errors import UserError
from minild.random import image_generators

MEAN, DEVIATION = 0.6, 0.5  # of the data, a Gaussian in every element
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "steps_offset": 0, "set_alpha_to_one": True}


def gaussian_epsilon(schedule):
    """E[ε | z_t] where z_0 ~ N(MEAN, DEVIATION²): linear in z_t. log σ is linear between timesteps."""
    levels = np.log(training_sigmas(schedule))

    def predict(latents, t):
        alpha_bar = 1 / (1 + math.exp(2 * np.interp(t, np.arange(len(levels)), levels)))
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


TRAILING = {**LINEAR, "timestep_spacing": "trailing"}  # begins at T - 1, where the flow is known to begin
IN_SIGMA = ("lms", "euler", "heun", "dpm2")  # these begin with x = σ_T u, the others with z = u
# The largest error at 10, 40 and 200 steps: the orders of the methods.
ERRORS = {
    "ddim": (0.35, 0.095, 0.02),
    "euler": (0.35, 0.095, 0.02),
    "pndm": (0.035, 0.003, 0.001),
    "lms": (0.09, 4e-4, 1e-5),
    "heun": (0.18, 0.017, 0.002),
    "dpmpp-2m": (0.26, 0.005, 0.001),
    "dpmpp-2m-karras": (0.15, 0.02, 5e-4),
    "unipc": (0.25, 0.007, 0.001),
    "dpm2": (0.25, 0.02, 0.002),
    "dpmpp-3m": (0.26, 0.025, 0.003),
    "dpm-solver": (0.3, 0.05, 0.003),
    "dpm-singlestep": (0.35, 0.05, 0.005),
    "deis": (0.3, 0.025, 0.002),
}


@pytest.mark.parametrize("name", ERRORS)
def test_more_steps_come_nearer_to_the_exact_flow(rng, name):
    """For Gaussian data (x - MEAN) / √(DEVIATION² + σ²) never changes along the flow."""
    schedule, u = NoiseSchedule(TRAILING), noise(rng, (1, 8, 6, 2))
    sigma = float(training_sigmas(schedule)[-1])
    x = u * (sigma if name in IN_SIGMA else math.hypot(sigma, 1))
    exact = MEAN + (x - MEAN) * DEVIATION / math.hypot(DEVIATION, sigma)
    errors = [abs(sample(SAMPLERS[name], schedule, u, steps) - exact).max() for steps in (10, 40, 200)]
    assert all(error < bound for error, bound in zip(errors, ERRORS[name])), errors
    assert errors[2] < errors[1] < errors[0] / 3


@pytest.mark.parametrize("name", ["deis", "dpm-solver", "dpm-singlestep"])
def test_a_higher_order_comes_nearer(rng, name):
    schedule, u = NoiseSchedule(TRAILING), noise(rng, (1, 8, 6, 2))
    sigma = float(training_sigmas(schedule)[-1])
    exact = MEAN + (u * math.hypot(sigma, 1) - MEAN) * DEVIATION / math.hypot(DEVIATION, sigma)
    errors = [abs(sample(SAMPLERS[name], schedule, u, 200, solver_order=order) - exact).max() for order in (1, 2, 3)]
    assert errors[0] > 3 * errors[1] > 3.5 * errors[2], errors


STOCHASTIC = ["euler-a", "dpm2-a", "dpmpp-2m-sde", "dpm-solver-sde"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in STOCHASTIC), ("dpm-singlestep", {"algorithm_type": "sde-dpmsolver++"})],
)
def test_a_stochastic_sampler_draws_from_the_data(rng, name, settings):
    generators = image_generators(0, 2)
    z = sample(SAMPLERS[name], NoiseSchedule(TRAILING), noise(rng), 400, generators=generators, **settings)
    assert z.mean() == pytest.approx(MEAN, abs=0.015)
    assert z.std() == pytest.approx(DEVIATION, abs=0.015)


def test_as_in_the_reference_noise_stays_in_the_sample_of_order_three(rng):
    """A weight's sign is astray there; a folder of that sampler draws as there all the same."""
    schedule = NoiseSchedule(TRAILING)
    z = sample(SAMPLERS["dpmpp-3m-sde"], schedule, noise(rng), 400, generators=image_generators(0, 2))
    assert z.mean() == pytest.approx(MEAN, abs=0.015)
    assert z.std() == pytest.approx(0.56, abs=0.015)


def test_no_integral_of_epsilon_goes_to_infinity(rng):
    for name in ("dpmpp-2m", "dpm-singlestep"):
        with pytest.raises(UserError, match="algorithm_type = 'dpmsolver' cannot end at final_sigmas_type = 'zero'"):
            sample(SAMPLERS[name], NoiseSchedule(), noise(rng, (1, 2, 2, 1)), 5, algorithm_type="dpmsolver")


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ddim-inverse", "dpm-solver-sde"}))
def test_all_end_at_the_only_picture_there_is(rng, name, spacing, prediction):
    """Data of one point: the model knows it at once, and every sampler ends there, whatever it starts from.

    Except one, which continues the ε of before over steps that renew the noise: it needs many.
    """
    if name == "pndm" and (spacing == "linspace" or prediction == "v_prediction"):
        pytest.skip("adds up v of several timesteps; steps T / N where linspace places T / (N - 1)")
    point = noise(rng, (1, 4, 3, 2))
    schedule = NoiseSchedule({**LINEAR, "timestep_spacing": spacing, "prediction_type": prediction})

    def predict(latents, t):
        # of fractional t as the samplers in σ see it
        sigma = float(np.interp(t, np.arange(1000), training_sigmas(schedule)))
        signal, spread = 1 / math.hypot(sigma, 1), sigma / math.hypot(sigma, 1)
        epsilon = (latents - signal * point) / spread
        return {"epsilon": epsilon, "sample": point, "v_prediction": signal * epsilon - spread * point}[prediction]

    z = list(SAMPLERS[name](predict, noise(rng, (1, 4, 3, 2)), schedule, 12, image_generators(0, 1)))[-1]
    karras = name == "dpmpp-2m-karras" and prediction != "sample"  # its timesteps are rounded, its σ are not
    noisy = name in ("dpm-solver", "deis")  # these end at t = 0
    np.testing.assert_allclose(z, point, atol=0.06 if karras or noisy else 2e-2)


def test_ddim_inverse_finds_the_noise_that_ddim_makes_the_picture_from(rng):
    schedule, z = NoiseSchedule(LINEAR), noise(rng, (1, 6, 4, 3))
    found = sample(SAMPLERS["ddim-inverse"], schedule, z, 500)
    np.testing.assert_allclose(found, (z - MEAN) / DEVIATION, atol=0.05)
    np.testing.assert_allclose(sample(ddim, schedule, found, 500), z, atol=0.03)


def test_zero_terminal_snr_begins_with_nothing_but_noise(rng):
    """v of one point at ᾱ = 0 is the point itself; ε tells nothing there, and its σ is only large."""
    point, u = noise(rng, (2, 1, 4, 3, 2))
    fields = {**TRAILING, "rescale_betas_zero_snr": True}
    schedule = NoiseSchedule({**fields, "prediction_type": "v_prediction"})

    def predict(latents, t):
        signal, spread = (float(level[0, 0, 0, 0]) for level in schedule.noise_levels(np.array([t])))
        return signal * (latents - signal * point) / spread - spread * point

    for name in ("ddim", "euler", "dpmpp-2m", "unipc"):
        z = list(SAMPLERS[name](predict, u, schedule, 10))[-1]
        np.testing.assert_allclose(z, point, atol=2e-2)
    with pytest.raises(UserError, match="tells nothing where ᾱ is 0"):
        list(ddim(predict, u, NoiseSchedule(fields), 10))


def test_lcm_by_hand(rng):
    schedule, u = NoiseSchedule(), noise(rng, (1, 4, 3, 2))
    generators = image_generators(3, 1)
    z = list(SAMPLERS["lcm"](lambda x, t: 0.3 * x, u, schedule, 2, image_generators(3, 1)))[-1]
    expected = u
    for t, after in ((999, 499), (499, None)):
        alpha_bar = schedule.alphas_cumprod[t]
        clean = (expected - (1 - alpha_bar) ** 0.5 * 0.3 * expected) / alpha_bar**0.5
        s = 10 * t
        expected = 0.25 / (s**2 + 0.25) * expected + s / (s**2 + 0.25) ** 0.5 * clean
        if after:
            fresh = generators[0].standard_normal(u.shape[1:], np.float32)
            alpha_bar = schedule.alphas_cumprod[after]
            expected = alpha_bar**0.5 * expected + (1 - alpha_bar) ** 0.5 * fresh
    np.testing.assert_allclose(z, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "settings"),
    [
        (ddim, {"eta": 0.7}),
        (SAMPLERS["pndm"], {"skip_prk_steps": False}),
        (SAMPLERS["dpm-singlestep"], {"solver_order": 3, "solver_type": "heun", "algorithm_type": "sde-dpmsolver++"}),
        *((each, {}) for each in SAMPLERS.values()),
    ],
)
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
