"""AdamW, moving average, clipping and learning rate, against their formulas on single numbers."""

import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import device_of, to_device, to_host
from minild.engine import cores
from minild.nn.module import Module, Parameter
from minild.training import optimizer
from minild.training.flat import flatten
from minild.training.optimizer import (
    AdamW,
    ExponentialMovingAverage,
    chunks,
    clip_by_global_norm,
    learning_rate_at,
)


class Mixed(Module):
    """Matrices and vectors in turn."""

    def __init__(self):
        self.weight = Parameter((2, 3), ("normal", 1.0), "linear")
        self.bias = Parameter((3,), ("normal", 1.0))
        self.kernel = Parameter((1, 2, 2, 5), ("normal", 1.0), "conv")
        self.scale = Parameter((4,), ("normal", 1.0))


SIZE = 6 + 3 + 20 + 4
DECAYS = [1] * 6 + [0] * 3 + [1] * 20 + [0] * 4


def mixed(device="cpu", dtype="float64"):
    return Mixed().initialise(np.random.default_rng(3)).astype(dtype).to(device)


def adamw(weight, gradients, rates, decay, beta1, beta2, eps):
    """Algorithm 2 of the paper, on one number."""
    m = v = 0.0
    for n, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
        weight = weight - rate * (m_hat / (math.sqrt(v_hat) + eps) + decay * weight)
    return weight


def give(module, gradient):
    """Add a flat host gradient into the parameters' own, as backward does."""
    start = 0
    for parameter in module.parameters():
        end = start + parameter.data.size
        part = gradient[start:end].reshape(parameter.data.shape).astype(parameter.data.dtype)
        parameter.accumulate(to_device(part, device_of(parameter.data)))
        start = end


def flat_of(module, field="data"):
    return np.concatenate([to_host(getattr(parameter, field)).reshape(-1) for parameter in module.parameters()])


@pytest.mark.parametrize("eps", [1e-8, 0.3])
def test_adamw_is_its_formula_and_decays_only_matrices(device, rng, eps):
    module = mixed(device)
    before = flat_of(module)
    gradients, rates = rng.standard_normal((5, SIZE)), [0.1, 0.3, 0.0, 0.05, 0.2]
    optimiser = AdamW(module, beta1=0.8, beta2=0.95, eps=eps, weight_decay=0.4)
    assert np.array_equal(flat_of(module), before)
    for gradient, rate in zip(gradients, rates):
        with count_synchronisations() as waits:
            optimiser.zero_grad()
            give(module, gradient)
            optimiser.step(rate)
        assert waits.reasons == []
        assert np.array_equal(flat_of(module, "grad"), gradient)
    expected = [adamw(before[i], gradients[:, i], rates, 0.4 * DECAYS[i], 0.8, 0.95, eps) for i in range(SIZE)]
    np.testing.assert_allclose(flat_of(module), expected, rtol=1e-12)


def test_a_weight_without_gradient_only_decays():
    module = mixed()
    before = flat_of(module)
    AdamW(module, weight_decay=0.25).step(0.1)
    np.testing.assert_allclose(flat_of(module), before * (1 - 0.025 * np.array(DECAYS)), rtol=1e-14)


def test_a_gradient_from_before_the_optimiser_counts():
    module, other = mixed(), mixed()
    give(module, np.ones(SIZE))  # .grad was None: it keeps the caller's arrays
    AdamW(module).step(0.1)
    optimiser = AdamW(other)
    give(other, np.ones(SIZE))
    optimiser.step(0.1)
    assert np.array_equal(flat_of(module), flat_of(other))


@pytest.mark.parametrize("how", ["none", "accumulated", "replaced"])
def test_what_was_replaced_is_put_right_at_the_next_step(device, rng, how):
    """A training in which arrays are replaced is the one in which they were changed in place."""
    gradients, loaded = rng.standard_normal((3, SIZE)), rng.standard_normal(SIZE)

    def train(replace):
        module = mixed(device)
        optimiser, ema = AdamW(module), ExponentialMovingAverage(module)
        for n, gradient in enumerate(gradients):
            optimiser.zero_grad()
            start = 0
            for parameter in module.parameters():
                end = start + parameter.data.size
                if n == 1:
                    value = to_device(loaded[start:end].reshape(parameter.data.shape).copy(), device)
                    if replace:
                        parameter.data = value  # as load_state_dict does
                    else:
                        parameter.data[...] = value
                if replace:
                    parameter.grad = None
                start = end
            if not (how == "none" and n == 1):
                give(module, gradient)
            if replace and how == "replaced":
                for parameter in module.parameters():
                    parameter.grad = parameter.grad.copy()
            optimiser.step(0.1)
            ema.update()
        assert np.array_equal(to_host(optimiser.weights), flat_of(module))
        assert np.array_equal(to_host(optimiser.gradient), flat_of(module, "grad"))
        return flat_of(module), to_host(ema.average)

    for replaced, changed in zip(train(True), train(False)):
        assert np.array_equal(replaced, changed)


def test_average_and_clipping_see_what_was_replaced():
    module = mixed()
    optimiser, ema = AdamW(module), ExponentialMovingAverage(module)
    module.bias.data, module.bias.grad = np.array([7.0, 8, 9]), np.array([0.0, 3, 4])
    assert clip_by_global_norm(optimiser.gradient, 1.0) == 5
    assert module.bias.grad == pytest.approx([0, 0.6, 0.8])
    before = ema.average[6:9].copy()
    ema.update()
    assert ema.average[6:9] == pytest.approx(before + 9 / 11 * (np.array([7, 8, 9]) - before))


@pytest.mark.parametrize("change, words", [
    (lambda module: module.to("double"), r"weight\.data: expected a ndarray .*, got DeviceArray"),
    (lambda module: module.astype("float32"), r"weight\.data: expected dtype float64 .*, got float32"),
    (lambda module: setattr(module.scale, "data", np.zeros(5)), r"scale\.data: expected shape \(4,\), got \(5,\)"),
    (lambda module: setattr(module.bias, "grad", np.zeros(3, "f")), r"bias\.grad: expected dtype float64"),
])  # fmt: skip
def test_an_array_of_another_kind_is_refused(change, words):
    module = mixed()
    optimiser = AdamW(module)
    change(module)
    with pytest.raises(ValueError, match=words):
        optimiser.step(0.1)


def test_a_moved_module_is_gathered_anew():
    module = mixed()
    AdamW(module)
    module.to("double")
    AdamW(module).step(0.1)
    assert flatten(module, "data") is flatten(module, "data") and flatten(module, "grad").array.shape == (SIZE,)


def test_pieces_on_all_cores_are_one_pass(monkeypatch, rng):
    gradients = rng.standard_normal((4, SIZE))

    def train():
        module = mixed(dtype="float32")
        optimiser, ema = AdamW(module), ExponentialMovingAverage(module)
        for gradient in gradients:
            optimiser.zero_grad()
            give(module, gradient)
            optimiser.step(0.1)
            ema.update()
        return optimiser.weights, optimiser.m, optimiser.v, ema.average

    whole = train()
    monkeypatch.setattr(optimizer, "CHUNK", 7)
    monkeypatch.setattr(cores, "core_count", lambda: 3)
    for a, b in zip(whole, train()):
        assert np.array_equal(a, b)


def test_chunks_cover_a_host_array_once_and_a_device_array_whole(monkeypatch):
    monkeypatch.setattr(optimizer, "CHUNK", 4)
    assert chunks(np.zeros(10)) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert chunks(np.zeros(8)) == [slice(0, 4), slice(4, 8)]
    assert chunks(to_device(np.zeros(10), "double")) == [slice(0, 10)]


@pytest.mark.parametrize("decay", [0.9999, 0.4])
def test_moving_average_warms_up(device, rng, decay):
    values, module = rng.standard_normal((6, 4)), mixed(device)
    module.scale.data = to_device(values[0], device)
    ema = ExponentialMovingAverage(module, decay)
    expected = values[0].copy()
    for n in range(1, 6):
        module.scale.data = to_device(values[n], device)
        ema.update()
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * values[n]
    np.testing.assert_allclose(to_host(ema.average)[-4:], expected, rtol=1e-12)


def test_averaged_lends_the_average_and_gives_the_weights_back(device):
    module = mixed(device)
    ema = ExponentialMovingAverage(module)
    average = flat_of(module)
    for parameter in module.parameters():
        parameter.data *= 2
    assert np.array_equal(to_host(ema.average), average)  # a copy
    with ema.averaged():
        assert np.array_equal(flat_of(module), average)
    assert np.array_equal(flat_of(module), 2 * average)
    with pytest.raises(ZeroDivisionError), ema.averaged():
        raise ZeroDivisionError
    assert np.array_equal(flat_of(module), 2 * average)
    ema.adopt()
    assert np.array_equal(flat_of(module), average)


def test_optimiser_and_average_go_on_from_their_state(device, rng):
    gradients = rng.standard_normal((4, SIZE))

    def begun():
        module = mixed(device)
        return module, AdamW(module), ExponentialMovingAverage(module)

    def go(parts, some):
        module, optimiser, ema = parts
        for gradient in some:
            optimiser.zero_grad()
            give(module, gradient)
            optimiser.step(0.1)
            ema.update()

    whole, first, second = begun(), begun(), begun()
    go(whole, gradients)
    go(first, gradients[:2])
    second[1].weights[:] = first[1].weights
    for source, target in zip(first[1:], second[1:]):
        state = source.state_dict()
        assert all(isinstance(array, np.ndarray) for array in state.values())
        target.load_state_dict(state)
    go(second, gradients[2:])
    assert np.array_equal(flat_of(second[0]), flat_of(whole[0]))
    assert np.array_equal(to_host(second[2].average), to_host(whole[2].average))


@pytest.mark.parametrize("largest, factor", [(5.5, 1), (5.0, 1), (2.5, 0.5)])
def test_clipping_scales_only_what_is_too_long(device, largest, factor):
    gradient = to_device(np.array([3, 0, -4], "f"), device)
    with count_synchronisations() as waits:
        norm = clip_by_global_norm(gradient, largest)
    assert waits.reasons == []
    assert float(norm) == 5
    np.testing.assert_allclose(to_host(gradient), np.array([3, 0, -4]) * factor, rtol=1e-6)
    assert gradient.dtype == np.float32


def test_clipping_leaves_a_zero_gradient_zero(device):
    gradient = to_device(np.zeros(3, "f"), device)
    assert float(clip_by_global_norm(gradient, 1.0)) == 0
    assert to_host(gradient).tolist() == [0, 0, 0]


def test_learning_rate_rises_to_its_peak_and_falls():
    def rate(progress):
        return learning_rate_at(progress, 2.0, warm_up=0.2, initial=0.01, final=0.1)

    assert rate(0) == pytest.approx(0.02)  # the first step moves
    assert rate(0.1) == pytest.approx(0.02 + 1.98 / 2)
    assert rate(0.2) == pytest.approx(2.0)
    assert rate(0.4) == pytest.approx(0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert rate(0.6) == pytest.approx(1.1)
    assert rate(1) == rate(1.5) == pytest.approx(0.2)
    assert learning_rate_at(1.0, 2.0) == pytest.approx(0, abs=1e-12) and learning_rate_at(0.0, 2.0) > 0.01
    rates = np.array([rate(p) for p in np.linspace(0, 1, 201)])
    slopes = np.diff(rates)
    assert (slopes[:40] > 0).all() and (slopes[40:] < 0).all()
    assert rates.max() == pytest.approx(2.0)


def test_parameters_become_views_of_one_array(device):
    module = mixed(device)
    before = [to_host(p.data).copy() for p in module.parameters()]
    flat = flatten(module, "data").array
    assert flat.shape == (SIZE,) and flat.dtype == np.float64
    assert np.array_equal(to_host(flat), np.concatenate([array.ravel() for array in before]))
    for parameter, array in zip(module.parameters(), before):
        assert np.array_equal(to_host(parameter.data), array)
    flat[:] = to_device(np.arange(float(SIZE)), device)
    assert to_host(module.weight.data).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert to_host(module.scale.data).tolist() == [29, 30, 31, 32]
    module.bias.data[1] = -1
    assert float(flat[7]) == -1


def test_backward_adds_into_the_flat_gradient(device):
    module = mixed(device)
    flat = flatten(module, "grad").array
    assert flat.shape == (SIZE,) and flat.dtype == np.float64 and not to_host(flat).any()
    for _ in range(2):
        module.bias.accumulate(to_device(np.array([1.0, 2, 3]), device))
        module.weight.accumulate(to_device(np.full((2, 3), 0.5), device))
    assert to_host(flat).tolist() == [1] * 6 + [2, 4, 6] + [0] * 24


def test_a_replica_shares_the_flat_weights_and_not_the_gradients():
    module = mixed()
    flat = flatten(module, "data").array
    gradient = flatten(module, "grad").array
    replica = module.replica()
    other = flatten(replica, "grad").array
    flat[:] = 2
    for own, shared in zip(module.parameters(), replica.parameters()):
        assert shared.data is own.data
        assert (shared.data == 2).all()
    replica.bias.accumulate(np.ones(3))
    assert other.sum() == 3 and not gradient.any()
