"""minild.diffusion.guidance against its formula."""

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion.guidance import guided, rescaled


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
