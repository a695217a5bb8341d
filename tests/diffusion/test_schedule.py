"""minild.diffusion.schedule: β, ᾱ and timesteps against formulas and published figures."""

import math
import re

import numpy as np
import pytest

from minild.diffusion import SAMPLERS
from minild.diffusion.schedule import ALL, SUPPORTED, NoiseSchedule, add_noise, predict_clean, require_supported
from minild.errors import UserError

SCHEDULES = [{}, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
             {"beta_schedule": "squaredcos_cap_v2"}]


def test_stable_diffusions_figures():
    alpha_bar = NoiseSchedule().alphas_cumprod
    assert alpha_bar.shape == (1000,) and alpha_bar.dtype == np.float64
    assert alpha_bar[0] == pytest.approx(0.99914998, abs=3e-8)  # the figures are float32
    assert alpha_bar[999] == pytest.approx(0.00466010, abs=5e-9)
    sigma = np.sqrt((1 - alpha_bar) / alpha_bar)
    assert sigma[999] == pytest.approx(14.614647, rel=2e-5)
    assert sigma[0] == pytest.approx(0.0291675, rel=2e-5)


def test_linear_and_scaled_linear_betas():
    linear = NoiseSchedule({"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}).betas
    scaled = NoiseSchedule({"beta_start": 1e-4, "beta_end": 0.02}).betas
    for t in (0, 1, 333, 999):
        assert linear[t] == pytest.approx(1e-4 + t / 999 * (0.02 - 1e-4))
        assert scaled[t] == pytest.approx((0.01 + t / 999 * (math.sqrt(0.02) - 0.01)) ** 2)


def test_cosine_betas():
    schedule = NoiseSchedule({"beta_schedule": "squaredcos_cap_v2"})
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    for t in (0, 250, 500, 990):
        expected = math.cos(((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 / start
        assert schedule.alpha_bar(t) == pytest.approx(expected)
    assert schedule.betas[999] == 0.999


@pytest.mark.parametrize("config", SCHEDULES)
def test_one_noising_is_many_small_ones(config):
    """z_t = √(1 - β_t) z_(t-1) + √β_t ε, step after step, has the signal √ᾱ_t and the variance 1 - ᾱ_t."""
    schedule = NoiseSchedule(config)
    signal, variance = 1.0, 0.0
    levels = schedule.noise_levels(np.arange(1000))
    for t, beta in enumerate(schedule.betas):
        signal, variance = math.sqrt(1 - beta) * signal, (1 - beta) * variance + beta
        assert levels[0][t, 0, 0, 0] == pytest.approx(signal, rel=1e-6)
        assert levels[1][t, 0, 0, 0] ** 2 == pytest.approx(variance, rel=1e-6)


def test_every_picture_gets_the_noise_of_its_own_timestep(rng):
    schedule = NoiseSchedule()
    z, noise = rng.standard_normal((2, 3, 4, 6, 2), dtype="f")
    t = np.array([0, 999, 400])
    z_t = add_noise(z, noise, *schedule.noise_levels(t))
    assert z_t.dtype == np.float32
    for i in range(3):
        alpha_bar = np.prod(1 - schedule.betas[: t[i] + 1])
        expected = math.sqrt(alpha_bar) * z[i] + math.sqrt(1 - alpha_bar) * noise[i]
        np.testing.assert_allclose(z_t[i], expected, atol=1e-6)
        clean = predict_clean(z_t[i : i + 1], noise[i : i + 1], schedule.alpha_bar(t[i]))
        np.testing.assert_allclose(clean[0], z[i], atol=1e-4)


@pytest.mark.parametrize("t", [10, 500, 990])
def test_noised_latents_have_the_mean_and_variance_of_q(rng, t):
    z, noise = np.full((1, 200, 200, 1), 2.0), rng.standard_normal((1, 200, 200, 1))
    schedule = NoiseSchedule()
    z_t = add_noise(z, noise, *schedule.noise_levels(np.array([t])))
    variance = 1 - schedule.alphas_cumprod[t]
    assert z_t.mean() == pytest.approx(2 * math.sqrt(schedule.alphas_cumprod[t]), abs=4 * math.sqrt(variance) / 200)
    assert z_t.var() == pytest.approx(variance, rel=4 * math.sqrt(2) / 200)


def test_leading_timesteps():
    schedule = NoiseSchedule()
    np.testing.assert_array_equal(schedule.timesteps(50), range(981, 0, -20))
    assert schedule.timesteps(30)[0] == 958
    np.testing.assert_array_equal(NoiseSchedule({"steps_offset": 0}).timesteps(10), range(900, -1, -100))
    np.testing.assert_array_equal(schedule.timesteps(1), [1])


@pytest.mark.parametrize("steps", [1, 7, 333, 500, 501, 999, 1000])
@pytest.mark.parametrize("offset", [0, 1])
def test_no_timestep_is_visited_twice_or_does_not_exist(steps, offset):
    timesteps = NoiseSchedule({"steps_offset": offset}).timesteps(steps)
    assert len(timesteps) == steps and (np.diff(timesteps) == -(1000 // steps)).all()
    assert timesteps[-1] >= 0 and timesteps[0] <= 999


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_count_of_steps_that_there_is_not(steps):
    with pytest.raises(UserError, match=f"steps: expected 1 to 1000, got {steps}"):
        NoiseSchedule().timesteps(steps)


def test_before_the_first_timestep():
    schedule = NoiseSchedule()
    assert schedule.alpha_bar(-19) == schedule.alpha_bar(0) == schedule.alphas_cumprod[0]
    assert NoiseSchedule({"set_alpha_to_one": True}).alpha_bar(-19) == 1
    assert type(schedule.alpha_bar(np.int64(5))) is float


@pytest.mark.parametrize(("field", "value"), [
    ("beta_schedule", "sigmoid"), ("timestep_spacing", "sideways"), ("prediction_type", "flow_prediction"),
    ("final_sigmas_type", "middle"), ("thresholding", True),
    ("variance_type", "wide"), ("use_beta_sigmas", True), ("sigma_max", 80.0),
])
def test_a_setting_that_is_not_supported_is_refused(field, value):
    with pytest.raises(UserError, match=f"{field} = {re.escape(repr(value))} is not supported, use "):
        NoiseSchedule({field: value})


def test_a_sampler_has_values_of_its_own_or_those_of_all():
    assert {name for samplers in SUPPORTED.values() for name in samplers} <= {ALL, *SAMPLERS}
    for sampler, wrong, right in (("unipc", 4, 3), ("deis", 0, 1), ("dpmpp-2m", 4, 2)):
        with pytest.raises(UserError, match=f"^here: solver_order = {wrong} is not supported, use "):
            require_supported({"solver_order": wrong}, "here", sampler)
        require_supported({"solver_order": right, "timestep_spacing": "linspace"}, "here", sampler)
    require_supported({"solver_order": 9}, "here", "ddim")  # which has none
    with pytest.raises(UserError, match="timestep_spacing = 'linspace'"):
        require_supported({"timestep_spacing": "linspace"}, "here", "ddim-inverse")
    with pytest.raises(UserError, match="thresholding = True"):
        require_supported({"thresholding": True}, "here", "ddim-inverse")


def test_a_schedulers_other_fields_are_passed_over():
    """Stable Diffusion's file: most of it speaks to one sampler or another."""
    config = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "clip_sample": False, "trained_betas": None}
    assert NoiseSchedule(config).config == NoiseSchedule.defaults | NoiseSchedule.options


def test_trailing_and_linspace_timesteps():
    trailing, linspace = (NoiseSchedule({"timestep_spacing": name}) for name in ("trailing", "linspace"))
    np.testing.assert_array_equal(trailing.timesteps(10), range(999, 0, -100))
    np.testing.assert_array_equal(trailing.timesteps(3), [999, 666, 332])  # 1000, 666.7 and 333.3, rounded, less 1
    assert trailing.timesteps(48)[3] == 936  # of 937.5, less 1, by the rounding errors of the reference
    np.testing.assert_array_equal(linspace.timesteps(4), [999, 666, 333, 0])
    np.testing.assert_array_equal(linspace.timesteps(3), [999, 500, 0])
    for schedule in (trailing, linspace):
        np.testing.assert_array_equal(schedule.timesteps(1000), range(999, -1, -1))
        assert schedule.timesteps(1)[0] == (999 if schedule is trailing else 0)


@pytest.mark.parametrize("train_steps", [1000, 999, 100, 50])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_as_many_timesteps_as_steps(spacing, train_steps):
    """Also of 61, where the last of "trailing" is rounded to just above its end."""
    schedule = NoiseSchedule({"timestep_spacing": spacing, "num_train_timesteps": train_steps})
    for steps in range(2, train_steps + 1):
        timesteps = schedule.timesteps(steps)
        assert len(timesteps) == steps and timesteps[0] == train_steps - 1 and timesteps[-1] >= 0
        assert (np.diff(timesteps) < 0).all()


def test_betas_of_its_own():
    betas = [0.1, 0.2, 0.5]
    schedule = NoiseSchedule({"num_train_timesteps": 3, "trained_betas": betas, "beta_schedule": "linear"})
    np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.72, 0.36])
    with pytest.raises(UserError, match=r"trained_betas: expected num_train_timesteps = 3 numbers, got .* \(2,\)"):
        NoiseSchedule({"num_train_timesteps": 3, "trained_betas": betas[:2]})


@pytest.mark.parametrize(
    "config",
    [
        {"num_train_timesteps": 2, "trained_betas": [0.0, 0.5]},
        {"num_train_timesteps": 2, "trained_betas": [0.5, float("nan")]},
        {"beta_start": -0.01, "beta_schedule": "linear"},
        {"beta_end": 1.5},
    ],
)
def test_betas_that_are_no_variances(config):
    with pytest.raises(UserError, match="scheduler: betas lie above 0 and not above 1, got "):
        NoiseSchedule(config)


@pytest.mark.parametrize("config", SCHEDULES)
def test_zero_terminal_snr(config):
    """√ᾱ ends at exactly 0, begins as before, and in between is a linear function of what it was."""
    before = np.sqrt(NoiseSchedule(config).alphas_cumprod)
    after = np.sqrt(NoiseSchedule(config | {"rescale_betas_zero_snr": True}).alphas_cumprod)
    assert after[-1] == 0 and after[0] == pytest.approx(before[0])
    slope = before[0] / (before[0] - before[-1])
    np.testing.assert_allclose(after, slope * (before - before[-1]), atol=1e-9)


@pytest.mark.parametrize("alpha_bar", [0.9, 0.3])
def test_every_prediction_tells_the_picture_and_the_noise(rng, alpha_bar):
    z, noise = rng.standard_normal((2, 1, 4, 3, 2))
    signal, spread = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    z_t = signal * z + spread * noise
    outputs = {"epsilon": noise, "sample": z, "v_prediction": signal * noise - spread * z}
    for kind, output in outputs.items():
        clean, epsilon = NoiseSchedule({"prediction_type": kind}).predictions(output, z_t, alpha_bar)
        np.testing.assert_allclose(clean, z, atol=1e-12)
        np.testing.assert_allclose(epsilon, noise, atol=1e-12)


def test_only_v_tells_anything_at_the_ends(rng):
    z, noise = rng.standard_normal((2, 1, 4, 3, 2))
    velocity = NoiseSchedule({"prediction_type": "v_prediction"})
    np.testing.assert_array_equal(velocity.predictions(-z, noise, 0.0), [z, noise])
    np.testing.assert_array_equal(velocity.predictions(noise, z, 1.0), [z, noise])
    np.testing.assert_array_equal(NoiseSchedule({"prediction_type": "sample"}).predictions(z, noise, 0.0), [z, noise])
    for kind, alpha_bar in (("epsilon", 0.0), ("sample", 1.0)):
        with pytest.raises(UserError, match=f"prediction_type = '{kind}' tells nothing where ᾱ is {alpha_bar:g}"):
            NoiseSchedule({"prediction_type": kind}).predictions(z, noise, alpha_bar)
