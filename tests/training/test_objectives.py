"""The objectives of both stages: their losses by formula, their gradients by differences, their batches by counting."""

import numpy as np
import pytest
from models.tiny import AUTOENCODER
from tqdm import tqdm

from minild.data.pictures import to_signed
from minild.diffusion import FlowSchedule, NoiseSchedule
from minild.models import AutoencoderKL
from minild.training import autoencoder as stage_one
from minild.training.autoencoder import encode_pictures, prepare
from minild.training.flat import flatten
from minild.training.latent_diffusion import EARLY, DiffusionObjective
from training.small import autoencoder, autoencoder_objective, denoiser, diffusion_objective


def test_to_signed_spans_minus_one_to_one():
    signed = to_signed(np.array([0, 255, 102], np.uint8))
    assert signed.dtype == np.float32
    np.testing.assert_allclose(signed, [-1, 1, -0.2], atol=1e-6)


def test_prepare_gives_weights_of_unit_gain_and_narrow_posteriors():
    model, fresh = (AutoencoderKL.from_config(AUTOENCODER) for _ in range(2))
    prepare(model, -3.5)
    for (name, ours), theirs in zip(model.named_parameters(), fresh.parameters()):
        if ours.data.ndim > 1:
            fan_in = np.prod(ours.data.shape[:-1])
            assert abs(ours.data).max() <= np.sqrt(3 / fan_in) * 1.001
            assert np.allclose(ours.data, np.sqrt(3) * theirs.data)
        elif name != "quant_conv.bias":
            assert np.array_equal(ours.data, theirs.data)
    assert model.quant_conv.bias.data.tolist() == [0, 0, -3.5, -3.5]


def test_the_loss_of_the_autoencoder_is_its_formula(rng):
    model, objective = autoencoder(), autoencoder_objective(kl_weight=0.3)
    pictures, noise = batch = objective.batch(rng, 3, 0.0)
    x = pictures / 127.5 - 1
    posterior = model.encode(x.astype("f"))
    y = model.decode(posterior.mean + np.exp(posterior.logvar / 2) * noise)
    l1, mse = np.mean(np.abs(y - x)), np.mean((y - x) ** 2)
    kl = np.mean(0.5 * (posterior.mean**2 + np.exp(posterior.logvar) - 1 - posterior.logvar))
    losses, _ = objective.forward(model, batch)
    expected = {"loss": l1 + stage_one.SQUARED * mse + 0.3 * kl, "l1": l1, "mse": mse, "kl": kl}
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_the_denoiser_is_its_formula(rng):
    model, objective = denoiser(), diffusion_objective()
    z, noise, t, signal_level, noise_level, ids = batch = objective.batch(rng, 3, 0.0)
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[t.astype(int)].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(signal_level, np.sqrt(alpha_bar), rtol=1e-6)
    np.testing.assert_allclose(noise_level, np.sqrt(1 - alpha_bar), rtol=1e-6)
    z_t = (np.sqrt(alpha_bar) * z + np.sqrt(1 - alpha_bar) * noise).astype("f")
    predicted = model.unet(z_t, t, model.text_encoder(ids))
    losses, _ = objective.forward(model, batch)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {"loss": np.mean((noise - predicted) ** 2)}, rel=1e-5
    )


def require_slopes(model, objective, batch, rng, each=True):
    """0.7 times the objective's loss in float64: along a random direction of all weights, and with `each` of those of
    each parameter alone, its gradient is the central difference."""
    weights, gradient = (flatten(model, field).array for field in ("data", "grad"))
    assert weights.dtype == np.float64
    objective.backward(0.7, objective.forward(model, batch)[1])
    analytic = gradient.copy()
    directions = [rng.standard_normal(weights.size)]
    start = 0
    for parameter in model.parameters() if each else []:
        directions.append(np.zeros(weights.size))
        directions[-1][start : start + parameter.data.size] = rng.standard_normal(parameter.data.size)
        start += parameter.data.size
    middle, step, scale = weights.copy(), 1e-6, np.linalg.norm(analytic)
    for direction in directions:
        losses = []
        for sign in (1, -1):
            weights[:] = middle + sign * step * direction
            losses.append(0.7 * objective.forward(model, batch)[0]["loss"])
        numeric = (losses[0] - losses[1]) / (2 * step)
        assert analytic @ direction == pytest.approx(numeric, rel=1e-6, abs=1e-8 * max(1, scale))
    assert abs(analytic @ directions[0]) > 1e-3 * scale


def test_the_gradient_of_the_autoencoder_is_the_slope_of_its_loss(rng, monkeypatch):
    monkeypatch.setattr(stage_one, "to_signed", lambda pictures: pictures / 127.5 - 1)  # float64
    objective = autoencoder_objective(kl_weight=0.3)
    pictures, noise = objective.batch(rng, 2, 0.0)
    batch = pictures, noise.astype(np.float64)
    require_slopes(autoencoder("float64"), objective, batch, rng)


def test_the_gradient_of_the_denoiser_is_the_slope_of_its_loss(rng):
    """Of the text encoder's weights too."""
    objective = diffusion_objective()
    *arrays, ids = objective.batch(rng, 2, 0.0)
    batch = *(array.astype(np.float64) for array in arrays), ids
    require_slopes(denoiser("float64"), objective, batch, rng)


def test_a_batch_of_pictures(rng):
    objective = autoencoder_objective()
    pictures, noise = objective.batch(rng, 2000, 0.3)
    assert pictures.dtype == np.uint8 and noise.dtype == np.float32 and noise.shape == (2000, 4, 3, 2)
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    seen = [np.sum((pictures == picture).all(axis=(1, 2, 3))) for picture in objective.pictures]
    assert sum(seen) == 2000 and min(seen) > 2000 / 7 - 80


def test_encode_pictures_is_encode(device):
    pictures = autoencoder_objective().pictures
    posterior = autoencoder().encode(to_signed(pictures))
    means, deviations = encode_pictures(autoencoder().to(device), pictures, batch=3)
    np.testing.assert_allclose(means, posterior.mean, atol=1e-5)
    np.testing.assert_allclose(deviations, np.exp(posterior.logvar / 2), rtol=1e-4)
    modes, none = encode_pictures(autoencoder().to(device), pictures, posterior="mode")
    np.testing.assert_allclose(modes, posterior.mean, atol=1e-5)
    assert none.shape == modes.shape and not none.any()


def test_encode_pictures_shows_a_bar(monkeypatch, capsys):
    def at_once(work, delay, **settings):
        return tqdm(work, **settings)

    monkeypatch.setattr(stage_one, "tqdm", at_once)
    encode_pictures(autoencoder(), autoencoder_objective().pictures, batch=3)
    assert "encode: 100%" in capsys.readouterr().err


# Counts below are of 20,000 draws: a share is off by more than 0.015 once in some ten thousand trials, at most.
DRAWS, OFF = 20_000, 0.015


def counted(progress=0.0, captions=3, deviation=0.0, **settings):
    """A batch of DRAWS from 5 pictures: latents that say which picture, ids (picture, caption), -1 for "".

    means (5, 1, 2, 1), scaling factor 2."""
    picture, caption = np.meshgrid(np.arange(5), np.arange(captions), indexing="ij")
    token_ids = np.stack([picture, caption], axis=-1)
    kept = token_ids.copy()
    means = np.repeat(np.arange(5, dtype="f"), 2).reshape(5, 1, 2, 1)
    deviations = np.full_like(means, deviation)
    objective = DiffusionObjective(means, deviations, 2.0, token_ids, np.array([-1, -1]), NoiseSchedule(), **settings)
    batch = objective.batch(np.random.default_rng(8), DRAWS, progress)
    assert np.array_equal(token_ids, kept)
    return batch


@pytest.mark.parametrize(
    "progress, captions, shares",
    [
        (0.0, 2, [0.85, 0.15]),
        (EARLY - 0.01, 3, [0.85, 0.075, 0.075]),
        (EARLY, 2, [0.5, 0.5]),
        (1.0, 3, [1 / 3] * 3),
        (0.2, 1, [1.0]),
    ],
)
def test_the_first_caption_is_preferred_early(progress, captions, shares):
    ids = counted(progress, captions, first_caption=0.85, caption_dropout=0.0)[-1]
    assert np.bincount(ids[:, 1], minlength=captions) / DRAWS == pytest.approx(shares, abs=OFF)


def test_the_caption_is_the_pictures_own_and_is_sometimes_dropped():
    z, _, _, _, _, ids = counted(caption_dropout=0.2)
    dropped = (ids == -1).all(axis=1)
    assert dropped.mean() == pytest.approx(0.2, abs=OFF)
    assert np.array_equal(z[~dropped, 0, 0, 0], 2 * ids[~dropped, 0])
    assert np.bincount(z[:, 0, 0, 0].astype(int) // 2) / DRAWS == pytest.approx([0.2] * 5, abs=OFF)
    assert np.bincount(z[dropped, 0, 0, 0].astype(int) // 2) / dropped.sum() == pytest.approx([0.2] * 5, abs=0.04)


@pytest.mark.parametrize("progress, noisy_end, expected", [(0, 0, 0), (0, 1, 1), (EARLY - 0.01, 1, 1), (EARLY, 1, 0)])
def test_the_timesteps_follow_the_noisy_end_early(progress, noisy_end, expected):
    """P(t < u T) = u^(1 + noisy_end), uniform later."""
    _, _, t, signal_level, noise_level, _ = counted(progress, noisy_end=noisy_end)
    assert t.dtype == np.float32 and np.array_equal(t, np.floor(t)) and 0 <= t.min() and t.max() == 999
    for u in np.linspace(0.1, 0.9, 9):
        assert np.mean(t < 1000 * u) == pytest.approx(u ** (1 + expected), abs=OFF)
    levels = NoiseSchedule().noise_levels(t.astype(int))
    assert np.array_equal(signal_level, levels[0]) and np.array_equal(noise_level, levels[1])


def test_latents_are_drawn_anew_from_their_posterior():
    z, noise, *_, ids = counted(deviation=0.3, caption_dropout=0.0)
    assert z.dtype == noise.dtype == np.float32
    own = z - 2 * ids[:, :1].reshape(-1, 1, 1, 1)
    assert own.mean() == pytest.approx(0, abs=OFF)
    assert own.var() == pytest.approx((2 * 0.3) ** 2, rel=0.03)  # scaled as the means are
    assert noise.var() == pytest.approx(1, rel=0.03)
    assert np.mean(own * noise) / 0.6 == pytest.approx(0, abs=0.02)  # two draws, not one
    assert np.mean(own[:, 0, 0] * own[:, 0, 1]) / 0.36 == pytest.approx(0, abs=0.03)


def test_offset_noise_is_one_number_for_a_channel():
    objective = diffusion_objective(offset_noise=0.5)
    _, noise, *_ = objective.batch(np.random.default_rng(3), 4000, 0.5)
    means = noise.mean(axis=(1, 2))
    assert noise.var() == pytest.approx(1 + 0.25, rel=0.03)
    assert means.var() == pytest.approx(0.25 + 1 / 24, rel=0.05)  # of 24 pixels
    assert np.corrcoef(means.T)[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("times, middle", [("uniform", 0.5), ("logit_normal", 0.7268)])
def test_a_batch_of_a_flow(times, middle):
    """t from 0 to 1, its levels 1 - t and t; P(1/4 < t < 3/4) = 1 - 2 Φ(-log 3) of the logit-normal."""
    objective = diffusion_objective(schedule=FlowSchedule(), times=times)
    _, _, scaled, signal_level, noise_level, _ = objective.batch(np.random.default_rng(3), DRAWS, 1.0)
    t = scaled / 1000
    assert scaled.dtype == signal_level.dtype == np.float32 and 0 < t.min() and t.max() < 1
    np.testing.assert_allclose(noise_level, t.reshape(-1, 1, 1, 1), rtol=1e-6)
    np.testing.assert_allclose(signal_level, 1 - t.reshape(-1, 1, 1, 1), atol=1e-6)
    assert np.mean(abs(t - 0.5) < 0.25) == pytest.approx(middle, abs=OFF)
    assert np.mean(t < 0.5) == pytest.approx(0.5, abs=OFF)


def test_the_times_of_a_flow_are_shifted_in_training_too():
    """Half of the uniform times lie above 3/4 where shift is 3."""
    objective = diffusion_objective(schedule=FlowSchedule({"shift": 3.0}))
    _, _, scaled, *_ = objective.batch(np.random.default_rng(3), DRAWS, 1.0)
    assert np.mean(scaled > 750) == pytest.approx(0.5, abs=OFF)


def test_the_loss_of_a_flow_is_its_formula(rng):
    model, objective = denoiser(), diffusion_objective(schedule=FlowSchedule())
    z, noise, t, *_, ids = batch = objective.batch(rng, 3, 0.0)
    share = t.reshape(-1, 1, 1, 1) / 1000
    predicted = model.unet(((1 - share) * z + share * noise).astype("f"), t, model.text_encoder(ids))
    losses, _ = objective.forward(model, batch)
    assert float(losses["loss"]) == pytest.approx(np.mean((noise - z - predicted) ** 2), rel=1e-5)


@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_the_gradient_of_a_flow_is_the_slope_of_its_loss(rng, min_snr):
    objective = diffusion_objective(schedule=FlowSchedule(), min_snr=min_snr)
    *arrays, ids = objective.batch(rng, 2, 0.0)
    batch = *(array.astype(np.float64) for array in arrays), ids
    require_slopes(denoiser("float64"), objective, batch, rng, each=False)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_the_gradient_of_another_prediction_is_the_slope_of_its_loss(rng, prediction):
    objective = diffusion_objective(min_snr=5.0, schedule=NoiseSchedule({"prediction_type": prediction}))
    *arrays, ids = objective.batch(rng, 2, 0.0)
    batch = *(array.astype(np.float64) for array in arrays), ids
    require_slopes(denoiser("float64"), objective, batch, rng, each=False)


def test_a_batch_is_its_generators():
    objective = diffusion_objective()
    first, second = (objective.batch(np.random.default_rng(9), 4, 0.1) for _ in range(2))
    other = objective.batch(np.random.default_rng(10), 4, 0.1)
    for a, b in zip(first, second):
        assert np.array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
