"""minild.diffusion.loss: the value of the ε loss (its gradient is checked with the U-Net in tests/models)."""

import numpy as np
import pytest

from minild.diffusion.loss import (
    denoising_loss,
    denoising_loss_backward,
    epsilon_loss,
    epsilon_loss_backward,
    min_snr_weights,
    target_of,
)
from minild.diffusion.schedule import NoiseSchedule
from minild.nn.module import Module


class Scale(Module):
    """ε = x · context + t, remembering dy."""

    def forward(self, x, t, context):
        return x * context + t[:, None, None, None], x

    def backward(self, dy, cache):
        self.dy = dy
        return None, None, dy * cache


def test_loss_and_gradient_of_a_known_model(rng):
    z, noise, context = rng.standard_normal((3, 2, 4, 3, 2))
    t = np.array([0, 700])
    schedule, model = NoiseSchedule(), Scale()
    loss, cache = epsilon_loss(model, z, noise, t, schedule.noise_levels(t), context)
    alpha_bar = schedule.alphas_cumprod[t].reshape(2, 1, 1, 1)
    z_t = np.sqrt(alpha_bar) * z + np.sqrt(1 - alpha_bar) * noise
    error = noise - (z_t * context + t.reshape(2, 1, 1, 1))
    assert loss == pytest.approx((error**2).mean())
    dcontext = epsilon_loss_backward(3.0, cache)
    np.testing.assert_allclose(model.dy, -3 * 2 * error / error.size, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(dcontext, -3 * 2 * error * z_t / error.size, rtol=1e-5, atol=1e-7)


def test_the_loss_of_the_true_noise_is_zero(rng):
    z, noise = rng.standard_normal((2, 2, 4, 3, 2))
    t = np.array([100, 900])

    class Oracle(Module):
        def forward(self, x, t, context):
            return noise, None

    assert epsilon_loss(Oracle(), z, noise, t, NoiseSchedule().noise_levels(t), None)[0] == 0


PREDICTIONS = ["epsilon", "v_prediction", "sample"]


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_is_what_the_schedule_reads_a_prediction_as(rng, prediction, zero_snr):
    """NoiseSchedule.predictions, given the target, finds z_0 and ε again."""
    z, noise = rng.standard_normal((2, 3, 4, 3, 2))
    schedule = NoiseSchedule({"prediction_type": prediction, "rescale_betas_zero_snr": zero_snr})
    for t in (0, 400, 998):
        alpha_bar = schedule.alpha_bar(t)
        levels = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        z_t = levels[0] * z + levels[1] * noise
        clean, epsilon = schedule.predictions(target_of(prediction, z, noise, levels), z_t, alpha_bar)
        np.testing.assert_allclose(clean, z, atol=1e-6)
        np.testing.assert_allclose(epsilon, noise, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_say_the_same_of_every_prediction(rng, prediction):
    """w · (error of the output)² is min(SNR, 5) · (error of ẑ_0)², whatever the output; and finite where ᾱ is 0."""
    schedule = NoiseSchedule({"prediction_type": prediction})
    z, noise, error = rng.standard_normal((3, 6, 1, 1, 1))
    t = np.array([0, 100, 300, 500, 800, 999])
    alpha_bar = schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    levels = signal, noise_level = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    output = target_of(prediction, z, noise, levels) + error
    z_t = signal * z + noise_level * noise
    clean = np.stack([schedule.predictions(output[i], z_t[i], float(alpha_bar[i, 0, 0, 0]))[0] for i in range(6)])
    expected = np.minimum((signal / noise_level) ** 2, 5) * (clean - z) ** 2
    np.testing.assert_allclose(min_snr_weights(prediction, levels, 5.0) * error**2, expected, rtol=1e-5)
    assert np.isfinite(min_snr_weights(prediction, (np.array([0.0]), np.array([1.0])), 5.0)).all()


def test_min_snr_weights_of_a_flow_say_the_same_too(rng):
    z, noise, error = rng.standard_normal((3, 5, 1, 1, 1))
    t = np.array([0.01, 0.2, 0.5, 0.9, 1.0]).reshape(-1, 1, 1, 1)
    clean = (1 - t) * z + t * noise - t * (target_of("flow_prediction", z, noise, (1 - t, t)) + error)
    expected = np.minimum(((1 - t) / t) ** 2, 5) * (clean - z) ** 2
    np.testing.assert_allclose(min_snr_weights("flow_prediction", (1 - t, t), 5.0) * error**2, expected, atol=1e-12)


@pytest.mark.parametrize("min_snr", [None, 5.0])
@pytest.mark.parametrize("prediction", [*PREDICTIONS, "flow_prediction"])
def test_denoising_loss_and_its_gradient(rng, prediction, min_snr):
    z, noise, context = rng.standard_normal((3, 2, 4, 3, 2))
    t, model = np.array([0, 700]), Scale()
    levels = tuple(level.astype(float) for level in NoiseSchedule().noise_levels(t))
    loss, cache = denoising_loss(model, z, noise, t, levels, context, prediction, min_snr)
    z_t = levels[0] * z + levels[1] * noise
    weights = 1 if min_snr is None else min_snr_weights(prediction, levels, min_snr)
    error = z_t * context + t.reshape(2, 1, 1, 1) - target_of(prediction, z, noise, levels)
    assert loss == pytest.approx((weights * error**2).mean())
    dcontext = denoising_loss_backward(3.0, cache)
    np.testing.assert_allclose(model.dy, 3 * 2 * weights * error / error.size, rtol=1e-9)
    np.testing.assert_allclose(dcontext, model.dy * z_t, rtol=1e-9)


def test_denoising_loss_is_the_loss_of_epsilon_where_nothing_else_is_said(rng):
    z, noise, context = rng.standard_normal((3, 2, 4, 3, 2))
    t, levels = np.array([3, 700]), NoiseSchedule().noise_levels(np.array([3, 700]))
    arguments = Scale(), z, noise, t, levels, context
    assert denoising_loss(*arguments)[0] == epsilon_loss(*arguments)[0]
