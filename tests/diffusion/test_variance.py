"""The variance of DDPM's steps and the loss of a learnt one, by hand and by differences."""

import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion import NoiseSchedule, ddpm, variance
from minild.diffusion.loss import denoising_loss, denoising_loss_backward
from minild.diffusion.variance import hybrid_loss, hybrid_loss_backward, split_output, step_deviation, told_logvar
from minild.errors import UserError
from minild.nn.module import Module
from minild.random import image_generators

SMALL, LARGE = 0.02, 0.05
T = 1000


def test_the_fixed_variances():
    for kind, expected in {"fixed_small": SMALL, "fixed_small_log": SMALL, "fixed_large": LARGE}.items():
        assert step_deviation(kind, None, SMALL, LARGE) ** 2 == pytest.approx(expected)
    assert step_deviation("fixed_large_log", None, SMALL, LARGE) == step_deviation("fixed_large", None, SMALL, LARGE)
    assert step_deviation("fixed_small", None, 0.0, LARGE) == 0


def test_the_learnt_variances():
    told = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(
        step_deviation("learned_range", told, SMALL, LARGE) ** 2, [SMALL, math.sqrt(SMALL * LARGE), LARGE]
    )
    np.testing.assert_allclose(step_deviation("learned", told, SMALL, LARGE), [0, 0, 1])
    smallest = step_deviation("learned_range", told[:1], 0.0, LARGE)
    np.testing.assert_allclose(smallest, 1e-10)


def test_ddpm_adds_noise_of_the_variance_that_is_told(rng):
    """σ² = 0.09 in one half of the picture and 0 in the other, on top of the mean of a picture that is all zeros."""
    schedule = NoiseSchedule({"prediction_type": "sample"})
    u = rng.standard_normal((1, 40, 200, 1))
    told = np.where(np.arange(200) < 100, 0.09, 0.0).reshape(1, 1, 200, 1)

    def predict(z, t):
        return np.concatenate([0 * z, told + 0 * z], axis=-1)

    z = next(ddpm(predict, u, schedule, 10, image_generators(0, 1), variance_type="learned"))
    alone = image_generators(0, 1)
    mean = next(ddpm(lambda z, t: 0 * predict(z, t), u, schedule, 10, alone, variance_type="learned"))
    assert (z - mean)[:, :, :100].std() == pytest.approx(0.3, rel=0.05)
    np.testing.assert_allclose(z[:, :, 100:], mean[:, :, 100:])


@pytest.mark.parametrize("kind", ["fixed_large", "learned", "learned_range"])
def test_on_every_device_alone_or_in_a_batch(device, rng, kind):
    u = rng.standard_normal((3, 4, 6, 2)).astype("f")

    def predict(z, t):
        return z[..., [0, 1, 0, 1]] * 0.3 if kind.startswith("learned") else 0.3 * z

    def draw(z, seed):
        *_, z = ddpm(predict, z, NoiseSchedule(), 5, image_generators(seed, len(z)), variance_type=kind)
        return z

    expected = draw(u, 5)
    np.testing.assert_array_equal(draw(u[1:2], 6)[0], expected[1])
    z = draw(to_device(u, device), 5)
    assert z.dtype == np.float32
    np.testing.assert_allclose(to_host(z), expected, atol=1e-5)


def test_a_model_that_tells_no_variance_is_refused():
    z = np.zeros((1, 2, 2, 3))
    told = "variance_type = 'learned' needs 6 output channels for latents of 3, the U-Net has 3"
    with pytest.raises(UserError, match=told):
        split_output(z, z, "learned")
    assert split_output(z, z, "fixed_large")[1] is None


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_posterior_is_bayes(prediction):
    """Of one number: z_prev given z_t and z_0, by its definition."""
    schedule = NoiseSchedule({"prediction_type": prediction, "beta_end": 0.3})
    t = np.array([1, 400, 999])
    mean_scale, low, high, later = schedule.posterior(t)
    before, beta = schedule.alphas_cumprod[t - 1], schedule.betas[t]
    # q(z_prev | z_0) has the variance 1 - ᾱ_prev, and z_t = √(1 - β) z_prev + noise of variance β: precisions add
    precision = 1 / (1 - before) + (1 - beta) / beta
    np.testing.assert_allclose(np.exp(low.ravel()), 1 / precision, rtol=1e-5)
    np.testing.assert_allclose(np.exp(high.ravel()), beta, rtol=1e-5)
    of_clean = np.sqrt(before) / (1 - before) / precision
    alpha_bar = schedule.alphas_cumprod[t]
    of_output = {"epsilon": np.sqrt((1 - alpha_bar) / alpha_bar), "v_prediction": np.sqrt(1 - alpha_bar), "sample": 1}
    np.testing.assert_allclose(mean_scale.ravel(), of_clean * of_output[prediction], rtol=1e-4)
    first = schedule.posterior(np.array([0, 1]))
    assert later.ravel().tolist() == [1, 1, 1] and first[3].ravel().tolist() == [0, 1]
    assert first[1][0] == first[1][1]  # log β̃ of t = 0
    assert all(x.dtype == np.float32 and x.shape == (3, 1, 1, 1) for x in (mean_scale, low, high, later))


class Tells(Module):
    """A model whose output is what it is given."""

    def __init__(self, output):
        self.output = output

    def forward(self, x, t, context):
        return self.output, None

    def backward(self, dy, cache):
        self.dy = dy
        return None, None, dy


def case(rng, prediction):
    z, noise = rng.standard_normal((2, 4, 3, 2, 2))
    schedule, t = NoiseSchedule({"prediction_type": prediction}), np.array([0, 1, 300, 999])
    levels = [level.astype(float) for level in schedule.noise_levels(t)]
    posterior = [x.astype(float) for x in schedule.posterior(t)]
    output = rng.standard_normal((4, 3, 2, 4))
    return schedule, (z, noise, t, levels, posterior, None, prediction), output


@pytest.mark.parametrize("min_snr", [None, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_its_formula(rng, prediction, min_snr):
    """The KL of two normal distributions element by element, and at t = 0 the negative log density of z_0."""
    schedule, arguments, output = case(rng, prediction)
    z, noise, t, levels, *_ = arguments
    (loss, vlb), _ = hybrid_loss(Tells(output), *arguments, min_snr)
    simple = denoising_loss(Tells(output[..., :2]), z, noise, t, levels, None, prediction, min_snr)[0]
    nats = []
    for i, step in enumerate(t):
        alpha_bar, beta = schedule.alphas_cumprod[step], schedule.betas[step]
        before = schedule.alphas_cumprod[step - 1] if step else 1.0
        z_t = np.sqrt(alpha_bar) * z[i] + np.sqrt(1 - alpha_bar) * noise[i]
        clean, _ = schedule.predictions(output[i, ..., :2], z_t, float(alpha_bar))
        small = (1 - before) / (1 - alpha_bar) * beta
        means = [np.sqrt(before) * beta / (1 - alpha_bar) * c + np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar) * z_t
                 for c in (z[i], clean)]  # fmt: skip
        if step == 0:
            small = (1 - alpha_bar) / (1 - schedule.alphas_cumprod[1]) * schedule.betas[1]
        f = (output[i, ..., 2:] + 1) / 2
        logvar = f * np.log(beta) + (1 - f) * np.log(small)
        squared = (means[0] - means[1]) ** 2
        if step == 0:
            nats.append((np.log(2 * np.pi) + logvar + squared / np.exp(logvar)) / 2)
        else:
            nats.append((logvar - np.log(small) + (small + squared) / np.exp(logvar) - 1) / 2)
    assert vlb == pytest.approx(T * np.mean(nats), rel=1e-5)
    assert loss == pytest.approx(simple + 0.001 * vlb, rel=1e-9)


@pytest.mark.parametrize("min_snr", [None, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_gradient_is_the_slope_of_the_loss_with_the_mean_held(rng, prediction, min_snr, monkeypatch):
    _, arguments, output = case(rng, prediction)
    model = Tells(output)
    _, cache = hybrid_loss(model, *arguments, min_snr)
    hybrid_loss_backward(0.7, cache)
    analytic = model.dy
    held = variance.held_spread(output[..., :2] - variance.target_of(prediction, *arguments[:2], arguments[3]),
                                arguments[4])  # fmt: skip
    monkeypatch.setattr(variance, "held_spread", lambda error, posterior: held)
    for _ in range(5):
        direction, step = rng.standard_normal(output.shape), 1e-6
        losses = [hybrid_loss(Tells(output + sign * step * direction), *arguments, min_snr)[0][0] for sign in (1, -1)]
        numeric = 0.7 * (losses[0] - losses[1]) / (2 * step)
        assert (analytic * direction).sum() == pytest.approx(numeric, rel=1e-6)


def test_the_variance_does_not_teach_the_mean(rng):
    """The first half of the gradient is that of L_simple alone."""
    _, arguments, output = case(rng, "epsilon")
    z, noise, t, levels, *_ = arguments
    model, alone = Tells(output), Tells(output[..., :2])
    hybrid_loss_backward(1.0, hybrid_loss(model, *arguments)[1])
    denoising_loss_backward(1.0, denoising_loss(alone, z, noise, t, levels, None)[1])
    np.testing.assert_array_equal(model.dy[..., :2], alone.dy)
    assert np.abs(model.dy[..., 2:]).min() > 0


def test_the_best_variance_is_the_one_that_the_errors_have(rng):
    """At the least of L_vlb, σ² is the held spread."""
    _, arguments, output = case(rng, "epsilon")
    _, low, high, _ = arguments[4]
    target = variance.target_of("epsilon", *arguments[:2], arguments[3])
    held = variance.held_spread(output[..., :2] - target, arguments[4])
    best = 2 * (np.log(held) - low) / (high - low) - 1
    np.testing.assert_allclose(told_logvar(best, low, high), np.log(held))
    model = Tells(np.concatenate([output[..., :2], best], axis=-1))
    hybrid_loss_backward(1.0, hybrid_loss(model, *arguments)[1])
    np.testing.assert_allclose(model.dy[..., 2:], 0, atol=1e-12)


def test_a_model_of_too_few_channels_is_named(rng):
    _, arguments, output = case(rng, "epsilon")
    with pytest.raises(ValueError, match="model: expected an output of 4 channels for latents of 2, got 2"):
        hybrid_loss(Tells(output[..., :2]), *arguments)


def test_the_loss_stays_on_every_device(device, rng):
    _, (z, noise, t, levels, posterior, _, prediction), output = case(rng, "v_prediction")
    expected = hybrid_loss(Tells(output), z, noise, t, levels, posterior, None, prediction, 5.0)
    hybrid_loss_backward(1.0, expected[1])
    move = lambda x: [to_device(np.asarray(each), device) for each in x]  # noqa: E731
    z, noise, output = move([z, noise, output])
    model = Tells(output)
    with count_synchronisations() as waits:
        (loss, vlb), cache = hybrid_loss(model, z, noise, t, move(levels), move(posterior), None, prediction, 5.0)
        hybrid_loss_backward(1.0, cache)
    assert waits.reasons == []
    np.testing.assert_allclose([float(loss), float(vlb)], [float(each) for each in expected[0]], rtol=1e-9)
    np.testing.assert_allclose(to_host(model.dy), expected[1].model.dy, rtol=1e-9, atol=1e-12)
