"""minild.diffusion.guidance against its formula."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion import NoiseSchedule
from minild.diffusion.guidance import classifier_guided, guided, joined, rescaled
from minild.errors import UserError


class Recorder:
    """A model whose ε tells x, t and context apart, and which keeps the batch sizes that it was called with."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, context):
        self.batches.append(len(x))
        assert t.shape == (len(x),) and t.dtype == x.dtype
        return x * context.mean(axis=(1, 2))[:, None, None, None] + t[:, None, None, None] / 100


def inputs(rng):
    latents = rng.standard_normal((3, 4, 5, 2), dtype="f")
    return latents, rng.standard_normal((3, 6, 7), dtype="f"), rng.standard_normal((3, 6, 7), dtype="f")


@pytest.mark.parametrize("scale", [7.5, 0.0, 1.5])
def test_guidance(device, rng, scale):
    latents, context, negative_context = inputs(rng)
    model = Recorder()
    t = np.int64(981)
    positive, negative = (
        latents * c.mean(axis=(1, 2)).reshape(3, 1, 1, 1) + 9.81 for c in (context, negative_context)
    )
    on_device = [to_device(x, device) for x in (latents, context, negative_context)]
    with count_synchronisations() as waits:
        predict = guided(model, on_device[1], on_device[2], scale)
        epsilon = predict(on_device[0], t)
    assert waits.reasons == [] and model.batches == [6]
    assert epsilon.dtype == np.float32
    np.testing.assert_allclose(to_host(epsilon), (1 - scale) * negative + scale * positive, atol=2e-5)


def test_at_scale_one_the_negative_half_is_not_computed(device, rng):
    latents, context, negative_context = (to_device(x, device) for x in inputs(rng))
    model = Recorder()
    epsilon = guided(model, context, negative_context, 1.0)(latents, 981)
    assert model.batches == [3]
    expected = to_host(latents) * to_host(context).mean(axis=(1, 2)).reshape(3, 1, 1, 1) + 9.81
    np.testing.assert_allclose(to_host(epsilon), expected, atol=1e-5)


def test_scales_around_one_join_the_shortcut(rng):
    latents, context, negative_context = inputs(rng)
    near, at = (guided(Recorder(), context, negative_context, s)(latents, 500) for s in (1 + 1e-6, 1))
    np.testing.assert_allclose(near, at, atol=1e-5)


def test_two_passes_say_what_one_over_both_says(device, rng):
    inputs_there = [to_device(x, device) for x in inputs(rng)]
    model, together = Recorder(), Recorder()
    apart = guided(model, *inputs_there[1:], 3.0, passes=map)(inputs_there[0], 981)
    expected = guided(together, *inputs_there[1:], 3.0)(inputs_there[0], 981)
    assert model.batches == [3, 3] and together.batches == [6]
    np.testing.assert_allclose(to_host(apart), to_host(expected), atol=1e-5)


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescaling_gives_each_picture_the_deviation_of_its_positive_half(device, rng, rescale):
    epsilon, positive = rng.standard_normal((2, 3, 4, 5, 2), dtype="f") * [[[[5.0]]], [[[1.0]]], [[[0.2]]]] + 2
    epsilon, positive = 3 * epsilon.astype("f"), positive.astype("f")
    with count_synchronisations() as waits:
        y = rescaled(to_device(epsilon, device), to_device(positive, device), rescale)
    assert waits.reasons == [] and y.dtype == np.float32
    # by hand, a picture at a time
    for mine, x, reference in zip(to_host(y), epsilon, positive):
        full = x * (np.std(reference, ddof=1) / np.std(x, ddof=1))
        np.testing.assert_allclose(mine, rescale * full + (1 - rescale) * x, rtol=1e-5)
        if rescale == 1:
            assert mine.std() == pytest.approx(reference.std(), rel=1e-5)


def test_guidance_is_rescaled_by_its_positive_half(rng):
    latents, context, negative_context = inputs(rng)
    positive = guided(Recorder(), context, negative_context, 1.0)(latents, 981)
    plain = guided(Recorder(), context, negative_context, 7.5)(latents, 981)
    predict = guided(Recorder(), context, negative_context, 7.5, 0.7)
    np.testing.assert_allclose(predict(latents, 981), rescaled(plain, positive, 0.7), rtol=1e-5)
    assert abs(predict(latents, 981) - plain).max() > 0.1


def test_rescaling_in_float16_is_exact_and_zeros_stay_zeros(rng):
    epsilon, positive = (300 * rng.standard_normal((2, 2, 8, 8, 3))).astype("e")  # their squares are not in float16
    half = rescaled(epsilon, positive, 0.6)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, rescaled(epsilon.astype("d"), positive.astype("d"), 0.6), rtol=3e-3)
    zeros = np.zeros_like(epsilon)  # of a U-Net that has learned nothing yet
    np.testing.assert_array_equal(rescaled(zeros, zeros, 0.6), zeros)


class Pair(NamedTuple):
    first: Any
    second: Any = None


def test_joined_conditions_keep_what_is_not_there():
    both = joined(Pair(np.array([1, 2])), Pair(np.array([3, 4])))
    assert both.first.tolist() == [1, 2, 3, 4] and both.second is None


ALPHA_BAR = 0.36  # √ᾱ = 0.6, √(1 - ᾱ) = 0.8


def flat_schedule(kind):
    """A schedule of ten timesteps of which the fifth has ᾱ = 0.36."""
    schedule = NoiseSchedule({"prediction_type": kind, "num_train_timesteps": 10})
    schedule.alphas_cumprod = np.linspace(0.86, -0.04, 10)
    assert schedule.alphas_cumprod[5] == pytest.approx(ALPHA_BAR)
    return schedule


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_classifier_leads_epsilon(device, rng, kind):
    """ε - s √(1 - ᾱ) ∇ log p, whatever the model predicts: written out by hand for s = 2."""
    z, output, slope = rng.standard_normal((3, 2, 4, 5, 3), dtype="f")
    asked = []

    def gradient(latents, t):
        asked.append(to_host(t).tolist())
        return to_device(slope, device) * latents

    schedule = flat_schedule(kind)
    led = classifier_guided(lambda latents, t: to_device(output, device), gradient, 2.0, schedule)
    ours = to_host(led(to_device(z, device), 5))
    assert asked == [[5, 5]] and ours.dtype == np.float32
    _, before = schedule.predictions(output, z, ALPHA_BAR)
    clean, after = schedule.predictions(ours, z, ALPHA_BAR)
    np.testing.assert_allclose(after, before - 2 * 0.8 * slope * z, atol=2e-5)
    np.testing.assert_allclose(clean, (z - 0.8 * after) / 0.6, atol=2e-5)


def test_in_a_step_of_ddpm_the_classifier_moves_the_mean_as_in_algorithm_1(rng):
    """By s β_t / √α_t ∇ log p."""
    schedule, t = NoiseSchedule(), 700
    z, output, slope = rng.standard_normal((3, 1, 4, 5, 3))
    alpha_bar, previous, beta = schedule.alpha_bar(t), schedule.alpha_bar(t - 1), schedule.betas[t]

    def mean(predict):
        clean, _ = schedule.predictions(predict(z, t), z, alpha_bar)  # Ho et al. 2020, equation 7
        ours = np.sqrt(previous) * beta / (1 - alpha_bar) * clean
        return ours + np.sqrt(1 - beta) * (1 - previous) / (1 - alpha_bar) * z

    led = classifier_guided(lambda z, t: output, lambda z, t: slope, 3.0, schedule)
    moved = mean(led) - mean(lambda z, t: output)
    np.testing.assert_allclose(moved, 3 * beta / np.sqrt(1 - beta) * slope, rtol=1e-9)


def test_a_variance_that_the_model_tells_stays_as_it_is(rng):
    output, z = rng.standard_normal((1, 2, 3, 4)), rng.standard_normal((1, 2, 3, 2))
    schedule = flat_schedule("epsilon")
    led = classifier_guided(lambda z, t: output, lambda z, t: z, 2.0, schedule)(z, 4)
    alone = classifier_guided(lambda z, t: output[..., :2], lambda z, t: z, 2.0, schedule)(z, 4)
    np.testing.assert_array_equal(led, np.concatenate([alone, output[..., 2:]], axis=-1))


def test_between_timesteps_and_at_noise_alone():
    schedule = flat_schedule("epsilon")
    z = np.ones((1, 1, 1, 1))
    led = classifier_guided(lambda z, t: 0 * z, lambda z, t: z, 1.0, schedule)
    assert led(z, 4.5).item() == pytest.approx(-np.sqrt(1 - 0.41))
    schedule = flat_schedule("v_prediction")
    schedule.alphas_cumprod[9] = 0
    led = classifier_guided(lambda z, t: 3 * z, lambda z, t: z, 1.0, schedule)
    assert led(z, 9).item() == 3
    schedule.config["prediction_type"] = "flow"
    with pytest.raises(UserError, match="cannot lead a model of prediction_type = 'flow'"):
        classifier_guided(None, None, 1.0, schedule)
