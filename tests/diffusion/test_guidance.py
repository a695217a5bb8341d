"""minild.diffusion.guidance against its formula."""

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion.guidance import guided


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
