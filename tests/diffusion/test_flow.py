"""Rectified flow: its schedule and its sampler, on data whose flow is known in closed form."""

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion import FlowSchedule, NoiseSchedule, flow_euler, schedule_of
from minild.errors import UserError
from minild.random import image_generators

MEAN, DEVIATION = 0.6, 0.5  # of the data, a Gaussian in every element


def gaussian_velocity(z, t):
    """E[ε - z_0 | z_t] where z_0 ~ N(MEAN, DEVIATION²), t from 0 to 1000: linear in z_t."""
    t = t / 1000
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    slope = (t - (1 - t) * DEVIATION**2) / variance  # Cov(ε - z_0, z_t) / Var(z_t)
    return -MEAN + slope * (z - (1 - t) * MEAN)


def sample(schedule, latents, steps, predict=gaussian_velocity, **settings):
    *_, z = flow_euler(predict, latents, schedule, steps, image_generators(0, len(latents)), **settings)
    return z


def test_times_without_a_shift_are_equally_far_apart():
    np.testing.assert_allclose(FlowSchedule().times(4), [1, 0.667, 0.334, 0.001, 0], atol=1e-12)
    assert FlowSchedule().times(1) == [1, 0]


def test_a_shift_by_hand():
    """s t / (1 + (s - 1) t) at s = 3, the smallest time too, which is then shifted again."""
    smallest = 3 * 0.001 / (1 + 2 * 0.001)
    expected = [3 * t / (1 + 2 * t) for t in (1, (1 + smallest) / 2, smallest)]
    np.testing.assert_allclose(FlowSchedule({"shift": 3}).times(3), [*expected, 0], rtol=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_more_steps_come_nearer_to_the_exact_flow(rng, shift):
    """The flow of a Gaussian moves z_1 = u to MEAN + DEVIATION · u."""
    schedule, u = FlowSchedule({"shift": shift}), rng.standard_normal((1, 8, 6, 2))
    errors = [abs(sample(schedule, u, steps) - (MEAN + DEVIATION * u)).max() for steps in (10, 40, 200)]
    assert errors[2] < errors[1] / 3 < errors[0] / 9 and errors[2] < 0.02, errors


def test_a_straight_flow_takes_one_step(rng):
    """Of data of one point every line is straight: any number of steps ends there."""
    point, u = rng.standard_normal((2, 1, 4, 3, 2))
    for steps in (1, 7):
        z = sample(FlowSchedule(), u, steps, lambda z, t: (z - point) / (t / 1000))
        np.testing.assert_allclose(z, point, atol=1e-12)


def test_stochastic_sampling_by_hand(rng):
    """ẑ_0, noised anew with the pictures' own generators; the last step adds none."""
    u = rng.standard_normal((2, 4, 3, 2))
    z = sample(FlowSchedule({"shift": 3.0}), u, 2, lambda z, t: 0.3 * z + t / 1000, stochastic_sampling=True)
    fresh = np.stack([generator.standard_normal(u.shape[1:], np.float32) for generator in image_generators(0, 2)])
    after = FlowSchedule({"shift": 3.0}).times(2)[1]
    expected = (1 - after) * (u - (0.3 * u + 1)) + after * fresh
    expected = expected - after * (0.3 * expected + after)
    np.testing.assert_allclose(z, expected, rtol=1e-6)


def test_as_in_the_reference_stochastic_sampling_loses_variance(rng):
    """ẑ_0 is a mean, and noise of its own does not make up for that: it is meant for models of few steps."""
    z = sample(FlowSchedule(), rng.standard_normal((2, 100, 100, 1)), 400, stochastic_sampling=True)
    assert z.mean() == pytest.approx(MEAN, abs=0.015)
    assert z.std() < 0.8 * DEVIATION


def test_what_is_yielded_and_mixed_is_of_the_scale_of_all_samplers(rng):
    """√ᾱ z_0 + √(1 - ᾱ) ε of an exact model; and what is mixed in replaces it."""
    clean, noise, other = rng.standard_normal((3, 1, 6, 5, 3))
    seen = []

    def mix(z, alpha_bar):
        seen.append(alpha_bar)
        np.testing.assert_allclose(z, np.sqrt(alpha_bar) * clean + np.sqrt(1 - alpha_bar) * noise, atol=1e-12)
        return z

    trace = list(flow_euler(lambda z, t: noise - clean, noise, FlowSchedule(), 6, mix=mix))
    assert len(trace) == 6 and seen[-1] == 1 and (np.diff(seen) > 0).all()
    np.testing.assert_allclose(trace[-1], clean, atol=1e-12)
    *_, z = flow_euler(lambda z, t: noise - clean, noise, FlowSchedule(), 6,
                       mix=lambda z, a: np.sqrt(a) * other + np.sqrt(1 - a) * noise)  # fmt: skip
    np.testing.assert_allclose(z, other, atol=1e-12)


@pytest.mark.parametrize("stochastic", [False, True])
def test_on_every_device_alone_or_in_a_batch(device, rng, stochastic):
    u = rng.standard_normal((3, 4, 6, 2)).astype("f")
    settings = {"stochastic_sampling": stochastic}
    run = lambda z, first: list(  # noqa: E731
        flow_euler(gaussian_velocity, z, FlowSchedule(), 10, image_generators(first, len(z)), **settings)
    )[-1]
    expected = run(u, 5)
    np.testing.assert_array_equal(run(u[1:2], 6)[0], expected[1])
    before = to_device(u, device)
    with count_synchronisations() as waits:
        z = run(before, 5)
    assert waits.reasons == []
    assert z.dtype == np.float32
    np.testing.assert_allclose(to_host(z), expected, atol=1e-5)
    np.testing.assert_array_equal(to_host(before), u)


def test_the_class_says_which_schedule():
    flow = schedule_of({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.0})
    assert isinstance(flow, FlowSchedule) and flow.shift == 2 and flow.config["prediction_type"] == "flow_prediction"
    assert flow.given == {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 2.0}
    assert isinstance(schedule_of({"prediction_type": "sample"}), NoiseSchedule)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shift": 0}, "shift must be a number above 0, got 0"),
        ({"shift": "3"}, "shift must be a number above 0, got '3'"),
        ({"shift": float("nan")}, "shift must be a number above 0, got nan"),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting = True is not supported, use False"),
        ({"shift_terminal": 0.1}, "shift_terminal = 0.1 is not supported, use None"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas = True is not supported, use False or None"),
        ({"invert_sigmas": True}, "invert_sigmas = True is not supported, use False"),
    ],
)
def test_what_is_not_supported_is_named(fields, words):
    with pytest.raises(UserError, match=words):
        FlowSchedule(fields)


@pytest.mark.parametrize("steps", [0, 1001])
def test_too_few_or_too_many_steps(steps):
    with pytest.raises(UserError, match="steps: expected 1 to 1000"):
        FlowSchedule().times(steps)
