"""minild.diffusion.loss: the value of the ε loss (its gradient is checked with the U-Net in tests/models)."""

import numpy as np
import pytest

from minild.diffusion.loss import epsilon_loss, epsilon_loss_backward
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
