"""One training step: what it reports, what a resume needs, and what crosses between host and device."""

import numpy as np
import pytest
from device_double import DeviceArray, count_synchronisations, to_device, to_host, xp

from minild import backend
from minild.nn.layers import Linear
from minild.ops.loss import mse, mse_backward
from minild.training import trainer as trainer_module
from minild.training.optimizer import learning_rate_at
from minild.training.presets import StagePreset
from minild.training.trainer import Trainer
from training.small import CASES, drawn

SETTINGS = StagePreset(learning_rate=0.02, batch_size=5, weight_decay=0.1, largest_norm=0.2)


class Regression:
    """y = x · [[2, -1], [0, 1], [3, 1]] + (1, -2), to be found by a Linear."""

    def __init__(self):
        self.asked = []

    def batch(self, rng, size, progress):
        self.asked.append((size, progress))
        x = rng.standard_normal((size, 3), dtype=np.float32)
        return x, (x @ np.array([[2, -1], [0, 1], [3, 1]]) + [1, -2]).astype("f")

    def work(self, module, part, share):
        x, target = part
        y, cache = module.forward(x)
        loss, loss_cache = mse(y, target)
        module.backward(mse_backward(share, loss_cache)[0], cache)
        return {"loss": share * loss}


def trainer_of(case, device="cpu", seed=1, replicas=1):
    make_model, make_objective = CASES[case]
    return Trainer(make_model().to(device), make_objective(), np.random.default_rng(seed), SETTINGS, replicas)


def test_the_loss_falls_on_a_problem_that_can_be_solved():
    objective, model = Regression(), drawn(Linear(3, 2))
    settings = StagePreset(learning_rate=0.1, batch_size=16, weight_decay=0.0, largest_norm=100.0)
    with Trainer(model, objective, np.random.default_rng(0), settings) as trainer:
        losses = [float(trainer.step(i / 300)["loss"]) for i in range(300)]
    assert losses[0] > 1 and losses[-1] < 1e-3
    np.testing.assert_allclose(model.weight.data, [[2, -1], [0, 1], [3, 1]], atol=0.05)
    np.testing.assert_allclose(model.bias.data, [1, -2], atol=0.05)
    assert objective.asked == [(16, i / 300) for i in range(300)]


def test_there_are_no_more_replicas_than_pictures(monkeypatch):
    monkeypatch.setattr(trainer_module, "core_count", lambda: 64)
    model = drawn(Linear(3, 2))
    assert len(Trainer(model, Regression(), None, SETTINGS).replicas.modules) == SETTINGS.batch_size == 5


@pytest.mark.parametrize("case", CASES)
def test_a_step_reports_the_losses_and_the_norm_before_clipping(case):
    make_model, make_objective = CASES[case]
    with trainer_of(case, replicas=2) as trainer:
        before = trainer.weights.copy()
        metrics = trainer.step(0.4)
        first = trainer.optimizer.m / (1 - trainer.optimizer.beta1)  # the gradient that the optimiser saw
        change = trainer.weights - before
    objective, model = make_objective(), make_model()
    losses = objective.work(model, objective.batch(np.random.default_rng(1), 5, 0.4), 1.0)
    norm = np.sqrt(sum((parameter.grad.astype(float) ** 2).sum() for parameter in model.parameters()))
    expected = {name: float(loss) for name, loss in losses.items()} | {"gradient_norm": norm}
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, rel=1e-5)
    assert norm > 0.4  # so that there is something to clip
    assert np.linalg.norm(first) == pytest.approx(SETTINGS.largest_norm, rel=1e-5)
    rate = learning_rate_at(0.4, SETTINGS.learning_rate)
    assert np.median(abs(change)) == pytest.approx(rate, rel=0.05)  # AdamW moves each by the rate
    assert abs(change).max() < 1.5 * rate


def test_averaged_lends_the_average_and_gives_the_weights_back():
    with trainer_of("diffusion") as trainer:
        model_weight = trainer.replicas.modules[0].unet.conv_in.weight.data
        for i in range(3):
            trainer.step(0.2 + i / 10)
        weights, average = trainer.weights.copy(), trainer.ema.average.copy()
        assert not np.array_equal(weights, average)
        with trainer.averaged():
            assert np.array_equal(trainer.weights, average)
            averaged_weight = model_weight.copy()
        assert np.array_equal(trainer.weights, weights)
        assert not np.array_equal(model_weight, averaged_weight)  # the model follows: its parameters are views
        with pytest.raises(ZeroDivisionError), trainer.averaged():
            raise ZeroDivisionError
        assert np.array_equal(trainer.weights, weights)
        trainer.adopt_average()
        assert np.array_equal(trainer.weights, average)
        assert np.array_equal(model_weight, averaged_weight)


@pytest.mark.parametrize("case", CASES)
def test_a_training_goes_on_bit_for_bit_from_its_state(case, device):
    def steps(trainer, progresses):
        return [float(trainer.step(progress)["loss"]) for progress in progresses]

    with trainer_of(case, device, replicas=2) as trainer:
        steps(trainer, [0.1, 0.2])
        state = {name: array.copy() for name, array in trainer.state_dict().items()}
        generator = trainer.rng.bit_generator.state
        expected = steps(trainer, [0.3, 0.6])
        weights, average = backend.to_host(trainer.weights).copy(), backend.to_host(trainer.ema.average).copy()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    with trainer_of(case, device, seed=2, replicas=2) as other:
        steps(other, [0.9])
        other.load_state_dict(state)
        other.rng.bit_generator.state = generator
        assert steps(other, [0.3, 0.6]) == expected
        assert np.array_equal(backend.to_host(other.weights), weights)
        assert np.array_equal(backend.to_host(other.ema.average), average)


def test_a_state_of_another_model_is_refused():
    with trainer_of("diffusion") as trainer, trainer_of("autoencoder") as other:
        state = trainer.state_dict()
        before = other.weights.copy()
        with pytest.raises(ValueError, match="weights"):
            other.load_state_dict(state)
        with pytest.raises(ValueError, match=r"optimizer\.m"):
            other.load_state_dict(other.state_dict() | {"optimizer.m": state["optimizer.m"]})
        with pytest.raises(ValueError, match=r"ema\.average"):
            other.load_state_dict({k: v for k, v in other.state_dict().items() if k != "ema.average"})
        assert np.array_equal(other.weights, before)


@pytest.fixture
def crossings(monkeypatch):
    """The shapes of the arrays that go to the double, and how many come back."""
    there, back = [], []

    def counted_there(x):
        there.append(x.shape)
        return to_device(x)

    def counted_back(x):
        back.append(x.shape)
        return to_host(x)

    device = backend.Device(xp, DeviceArray, counted_there, counted_back)
    monkeypatch.setitem(backend._devices, "double", device)
    return there, back


BATCHES = {
    "autoencoder": [(5, 8, 6, 3), (5, 4, 3, 2)],  # pictures, noise
    "diffusion": [(5, 4, 6, 3)] * 2 + [(5,)] + [(5, 1, 1, 1)] * 2 + [(5, 5)],  # z, noise, t, its levels, token ids
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_on_a_device_is_the_hosts_and_only_the_batch_crosses(case, crossings):
    there, back = crossings
    with trainer_of(case) as host, trainer_of(case, "double") as device:
        for progress in (0.1, 0.2, 0.7):
            expected = host.step(progress)
            there.clear()
            with count_synchronisations() as waits:
                metrics = device.step(progress)
            assert waits.reasons == []
            assert there == BATCHES[case] and back == []
            assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
                {k: float(v) for k, v in expected.items()}, rel=1e-4
            )
            for name, array in device.state_dict().items():
                own = host.state_dict()[name]
                # AdamW steps as far along a gradient that is only rounding (of a key's bias) as along any other.
                assert np.linalg.norm(array - own) <= 2e-3 * np.linalg.norm(own), name
            back.clear()
