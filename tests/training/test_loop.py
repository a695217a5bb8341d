"""The training loop: what a step reports, what a resume needs, and what crosses between host and device."""

import numpy as np
import pytest
from device_double import DeviceArray, count_synchronisations, to_device, to_host, xp

from minild import backend
from minild.nn.layers import Linear
from minild.ops.loss import mse, mse_backward
from minild.training import AdamW, Budget, ExponentialMovingAverage, Replicas, StagePreset, training_steps
from minild.training.checkpoint import load_training_state, training_state
from minild.training.optimizer import learning_rate_at
from training.small import CASES, drawn

PRESET = StagePreset(learning_rate=0.02, batch_size=5, weight_decay=0.1, largest_norm=0.2)


class Regression:
    """y = x · [[2, -1], [0, 1], [3, 1]] + (1, -2), to be found by a Linear."""

    def __init__(self):
        self.asked = []

    def batch(self, rng, size, progress):
        self.asked.append((size, progress))
        x = rng.standard_normal((size, 3), dtype=np.float32)
        return x, (x @ np.array([[2, -1], [0, 1], [3, 1]]) + [1, -2]).astype("f")

    def forward(self, module, batch):
        x, target = batch
        y, cache = module.forward(x)
        loss, loss_cache = mse(y, target)
        return {"loss": loss}, (module, cache, loss_cache)

    def backward(self, dloss, cache):
        module, cache, loss_cache = cache
        module.backward(mse_backward(dloss, loss_cache)[0], cache)


class Training:
    """A small model, its optimiser and average, and step(progress) -> what training_steps reports."""

    def __init__(self, case, device="cpu", seed=1, replicas=None):
        make_model, make_objective = CASES[case]
        self.model, self.objective, self.rng = make_model().to(device), make_objective(), np.random.default_rng(seed)
        self.optimizer = AdamW(self.model, weight_decay=PRESET.weight_decay)
        self.ema = ExponentialMovingAverage(self.model)
        self.replicas = replicas and Replicas(self.model, self.objective, replicas)

    def __enter__(self):
        if self.replicas:
            self.replicas.__enter__()
        return self

    def __exit__(self, *exception):
        if self.replicas:
            self.replicas.__exit__(*exception)

    def step(self, progress):
        steps = training_steps(
            self.model, self.objective, PRESET, Budget(steps=1000, taken=round(1000 * progress)), self.rng,
            self.optimizer, self.ema, self.replicas and self.replicas.gradient,
        )  # fmt: skip
        return next(steps)[1]

    def state(self):
        return training_state(self.optimizer, self.ema)


def test_the_loss_falls_on_a_problem_that_can_be_solved():
    objective, model = Regression(), drawn(Linear(3, 2))
    preset = StagePreset(learning_rate=0.1, batch_size=16, weight_decay=0.0, largest_norm=100.0)
    taken = list(training_steps(model, objective, preset, Budget(steps=300), np.random.default_rng(0)))
    assert [step for step, _ in taken] == list(range(1, 301))
    assert taken[0][1]["loss"] > 1 and taken[-1][1]["loss"] < 1e-3
    np.testing.assert_allclose(model.weight.data, [[2, -1], [0, 1], [3, 1]], atol=0.05)
    np.testing.assert_allclose(model.bias.data, [1, -2], atol=0.05)
    assert objective.asked == [(16, i / 300) for i in range(300)]


def test_the_loop_counts_from_where_the_budget_is_and_drops_older_gradients():
    model, fresh = drawn(Linear(3, 2)), drawn(Linear(3, 2))
    model.weight.grad = np.full((3, 2), 7, "f")
    for module in (model, fresh):
        steps = training_steps(module, Regression(), PRESET, Budget(steps=5, taken=3), np.random.default_rng(0))
        assert [step for step, _ in steps] == [4, 5]
    assert np.array_equal(model.weight.data, fresh.weight.data)


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("case", CASES)
def test_a_step_reports_the_losses_the_norm_before_clipping_and_the_rate(case, replicas):
    make_model, make_objective = CASES[case]
    with Training(case, replicas=replicas) as training:
        optimizer = training.optimizer
        before = optimizer.weights.copy()
        metrics = training.step(0.4)
        first = optimizer.m / (1 - optimizer.beta1)  # the gradient that the optimiser saw
        change = optimizer.weights - before
    objective, model = make_objective(), make_model()
    losses, cache = objective.forward(model, objective.batch(np.random.default_rng(1), 5, 0.4))
    objective.backward(1.0, cache)
    norm = np.sqrt(sum((parameter.grad.astype(float) ** 2).sum() for parameter in model.parameters()))
    rate = learning_rate_at(0.4, PRESET.learning_rate)
    expected = {name: float(loss) for name, loss in losses.items()} | {"gradient_norm": norm, "learning_rate": rate}
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, rel=1e-5)
    assert norm > 0.4  # so that there is something to clip
    assert np.linalg.norm(first) == pytest.approx(PRESET.largest_norm, rel=1e-5)
    assert np.median(abs(change)) == pytest.approx(rate, rel=0.05)  # AdamW moves each by the rate
    assert abs(change).max() < 1.5 * rate


@pytest.mark.parametrize("case", CASES)
def test_a_training_goes_on_bit_for_bit_from_its_state(case, device):
    def steps(training, progresses):
        return [float(training.step(progress)["loss"]) for progress in progresses]

    with Training(case, device, replicas=2) as training:
        steps(training, [0.1, 0.2])
        state = {name: array.copy() for name, array in training.state().items()}
        generator = training.rng.bit_generator.state
        expected = steps(training, [0.3, 0.6])
        end = {name: array.copy() for name, array in training.state().items()}
    assert all(isinstance(array, np.ndarray) for array in state.values())
    with Training(case, device, seed=2, replicas=2) as other:
        steps(other, [0.9])
        load_training_state(other.optimizer, other.ema, state)
        other.rng.bit_generator.state = generator
        assert steps(other, [0.3, 0.6]) == expected
        for name, array in other.state().items():
            assert np.array_equal(array, end[name])


def test_a_state_of_another_model_is_refused():
    training, other = Training("diffusion"), Training("autoencoder")
    state, own = training.state(), other.state()
    before = own["weights"].copy()
    for wrong, words in (
        (state, "weights"),
        (own | {"optimizer.m": state["optimizer.m"]}, r"optimizer\.m"),
        ({name: array for name, array in own.items() if name != "ema.average"}, r"ema\.average"),
    ):
        with pytest.raises(ValueError, match=words):
            load_training_state(other.optimizer, other.ema, wrong)
    assert np.array_equal(other.optimizer.weights, before)


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
    with Training(case) as host, Training(case, "double", replicas=2) as device:
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
            for name, array in device.state().items():
                own = host.state()[name]
                # AdamW steps as far along a gradient that is only rounding (of a key's bias) as along any other.
                assert np.linalg.norm(array - own) <= 2e-3 * np.linalg.norm(own), name
            back.clear()
