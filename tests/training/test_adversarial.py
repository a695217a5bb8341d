"""The perceptual and the adversarial loss of stage one: by formula, by differences, and with the models kept apart."""

import numpy as np
import pytest

from minild.training import adversarial
from minild.training import autoencoder as stage_one
from minild.training.adversarial import AdversarialPair, adaptive_weight
from minild.training.budget import Budget
from minild.training.flat import flatten
from minild.training.loop import training_steps
from minild.training.presets import StagePreset
from minild.training.replicas import Replicas
from training.small import adversarial_objective, pair


def test_the_adaptive_weight_of_a_written_out_case():
    rebuilding, judged = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[0.0, 0.6], [0.8, 0.0]])
    assert adaptive_weight(rebuilding, judged) == pytest.approx(5 / (1 + 1e-4))
    assert adaptive_weight(rebuilding, 0 * judged) == adversarial.LARGEST_ADAPTIVE  # 5 / 1e-4 is more


def losses_by_formula(model, objective, batch):
    pictures, noise, _ = batch
    x = (pictures / 127.5 - 1).astype("f")
    posterior = model.autoencoder.encode(x)
    y = model.autoencoder.decode(posterior.mean + np.exp(posterior.logvar / 2) * noise)
    return x, y, objective.rebuilding.perceptual(y, x).mean()


def test_the_losses_are_their_formulas(rng):
    model, objective = pair(), adversarial_objective()
    batch = objective.batch(rng, 3, 0.0)
    x, y, distance = losses_by_formula(model, objective, batch)
    losses, _ = objective.forward(model, batch)
    real, generated = model.discriminator(x), model.discriminator(y)
    hinge = (np.maximum(1 - real, 0).mean() + np.maximum(1 + generated, 0).mean()) / 2
    expected = {"perceptual": distance, "discriminator": hinge, "real": real.mean(), "generated": generated.mean()}
    assert {name: float(losses[name]) for name in expected} == pytest.approx(expected, rel=1e-4)
    parts = losses["l1"] + stage_one.SQUARED * losses["mse"] + 0.3 * losses["kl"] + 0.6 * losses["perceptual"]
    assert float(losses["loss"]) == pytest.approx(float(parts), rel=1e-6)


@pytest.mark.parametrize("loss", ["hinge", "vanilla"])
def test_each_gradient_is_the_slope_of_its_own_models_loss(rng, monkeypatch, loss):
    """λ is a number to both: no gradient goes through it."""
    monkeypatch.setattr(stage_one, "to_signed", lambda pictures: pictures / 127.5 - 1)  # float64
    monkeypatch.setattr(adversarial, "adaptive_weight", lambda rebuilding, judged: 1.7)
    model, objective = pair("float64"), adversarial_objective(loss=loss, weight=0.5)
    objective.rebuilding.perceptual.astype("float64")
    pictures, noise, weights = objective.batch(rng, 2, 0.0)
    batch = pictures, noise.astype(float), weights
    objective.backward(0.7, objective.forward(model, batch)[1])

    def own_loss(part):
        losses, _ = objective.forward(model, batch)
        if part == "autoencoder":
            return 0.7 * (losses["loss"] - 0.5 * 1.7 * losses["generated"])
        return 0.7 * losses["discriminator"]

    for part in ("autoencoder", "discriminator"):
        module = getattr(model, part)
        analytic = np.concatenate([parameter.grad.ravel() for parameter in module.parameters()])
        weights = flatten(module, "data").gather()
        middle = weights.copy()
        for _ in range(4):
            direction = rng.standard_normal(weights.size)
            slopes = []
            for sign in (1, -1):
                weights[:] = middle + sign * 1e-6 * direction
                slopes.append(own_loss(part))
            weights[:] = middle
            slope = (slopes[0] - slopes[1]) / 2e-6
            assert analytic @ direction == pytest.approx(slope, rel=1e-5, abs=1e-7), part
            assert abs(slope) > 1e-3


def test_before_the_start_there_is_no_discriminator(rng):
    model, objective = pair(), adversarial_objective(start=0.5)
    batch = objective.batch(rng, 3, 0.49)
    losses, cache = objective.forward(model, batch)
    assert losses["real"] == losses["generated"] == losses["discriminator"] == 0
    objective.backward(1.0, cache)
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    after, _ = objective.forward(model, objective.batch(rng, 3, 0.5))
    assert after.keys() == losses.keys() and after["discriminator"] > 0


def test_the_gradient_is_scaled_by_the_adaptive_weight(rng, monkeypatch):
    """With weight · λ = 0 the autoencoder's gradient is that without a discriminator; with λ as it is, another."""
    model, objective = pair(), adversarial_objective()
    batch = objective.batch(rng, 3, 0.0)

    def gradient():
        model.zero_grad()
        objective.backward(1.0, objective.forward(model, batch)[1])
        return np.concatenate([parameter.grad.ravel() for parameter in model.autoencoder.parameters()])

    whole = gradient()
    monkeypatch.setattr(adversarial, "adaptive_weight", lambda rebuilding, judged: 0.0)
    alone = gradient()
    pictures, noise, weights = batch
    batch = pictures, noise, 0 * weights
    np.testing.assert_allclose(gradient(), alone, atol=1e-7)
    assert np.abs(whole - alone).max() > 1e-3 * np.abs(alone).max()


def test_a_training_of_the_pair_moves_both_in_their_own_direction(rng):
    model, objective = pair(), adversarial_objective(weight=0.1)
    objective.rebuilding.pictures = objective.rebuilding.pictures[:4]
    preset = StagePreset(learning_rate=2e-3, batch_size=4)
    with Replicas(model, objective, 2) as replicas:
        steps = list(training_steps(model, objective, preset, Budget(None, 120, 0, 0), rng, gradient=replicas.gradient))
    first, last = (sum(float(losses["loss"]) for _, losses in part) for part in (steps[:10], steps[-10:]))
    assert last < 0.9 * first
    assert float(steps[-1][1]["real"]) > float(steps[-1][1]["generated"])
    assert isinstance(model, AdversarialPair) and model.device == "cpu"
