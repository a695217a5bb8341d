"""AdamW, moving average, clipping and learning rate, against their formulas on single numbers."""

import math
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.nn.module import Module, Parameter
from minild.training import optimizer
from minild.training.optimizer import (
    AdamW,
    ExponentialMovingAverage,
    chunks,
    clip_by_global_norm,
    flatten_gradients,
    flatten_parameters,
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


@pytest.mark.parametrize("eps", [1e-8, 0.3])
def test_adamw_is_its_formula_and_decays_only_matrices(device, rng, eps):
    weights = flatten_parameters(mixed(device))
    before = to_host(weights).copy()
    gradients, rates = rng.standard_normal((5, SIZE)), [0.1, 0.3, 0.0, 0.05, 0.2]
    optimiser = AdamW(mixed(device), weights, beta1=0.8, beta2=0.95, eps=eps, weight_decay=0.4)
    for gradient, rate in zip(gradients, rates):
        given = to_device(gradient.copy(), device)
        with count_synchronisations() as waits:
            optimiser.step(given, rate)
        assert waits.reasons == []
        assert np.array_equal(to_host(given), gradient)
    expected = [adamw(before[i], gradients[:, i], rates, 0.4 * DECAYS[i], 0.8, 0.95, eps) for i in range(SIZE)]
    np.testing.assert_allclose(to_host(weights), expected, rtol=1e-12)


def test_a_weight_without_gradient_only_decays():
    module = mixed()
    weights = flatten_parameters(module)
    before = weights.copy()
    AdamW(module, weights, weight_decay=0.25).step(np.zeros(SIZE), 0.1)
    np.testing.assert_allclose(weights, before * (1 - 0.025 * np.array(DECAYS)), rtol=1e-14)


def test_pieces_on_threads_are_one_pass(monkeypatch, rng):
    gradients = rng.standard_normal((4, SIZE)).astype("f")

    def train(workers):
        module = mixed(dtype="float32")
        weights = flatten_parameters(module)
        optimiser, ema = AdamW(module, weights), ExponentialMovingAverage(weights)
        for gradient in gradients:
            optimiser.step(gradient, 0.1, workers)
            ema.update(weights, workers)
        return weights, optimiser.m, optimiser.v, ema.average

    whole = train(map)
    monkeypatch.setattr(optimizer, "CHUNK", 7)
    with ThreadPool(3) as pool:
        pieces = train(pool.map)
    for a, b in zip(whole, pieces):
        assert np.array_equal(a, b)


def test_chunks_cover_a_host_array_once_and_a_device_array_whole(monkeypatch):
    monkeypatch.setattr(optimizer, "CHUNK", 4)
    assert chunks(np.zeros(10)) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert chunks(np.zeros(8)) == [slice(0, 4), slice(4, 8)]
    assert chunks(to_device(np.zeros(10), "double")) == [slice(0, 10)]


@pytest.mark.parametrize("decay", [0.9999, 0.4])
def test_moving_average_warms_up(device, rng, decay):
    values = rng.standard_normal((6, 4))
    ema = ExponentialMovingAverage(to_device(values[0].copy(), device), decay)
    expected = values[0].copy()
    for n in range(1, 6):
        ema.update(to_device(values[n], device))
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * values[n]
    np.testing.assert_allclose(to_host(ema.average), expected, rtol=1e-12)


def test_moving_average_is_a_copy():
    weights = np.ones(3)
    ema = ExponentialMovingAverage(weights)
    weights[:] = 5
    assert ema.average.tolist() == [1, 1, 1]


def test_optimiser_and_average_go_on_from_their_state(device, rng):
    gradients = rng.standard_normal((4, SIZE))

    def begun(module):
        weights = flatten_parameters(module)
        return weights, AdamW(module, weights), ExponentialMovingAverage(weights)

    def go(parts, some):
        weights, optimiser, ema = parts
        for gradient in some:
            optimiser.step(to_device(gradient, device), 0.1)
            ema.update(weights)

    whole, first, second = (begun(mixed(device)) for _ in range(3))
    go(whole, gradients)
    go(first, gradients[:2])
    second[0][:] = first[0]
    for source, target in zip(first[1:], second[1:]):
        state = source.state_dict()
        assert all(isinstance(array, np.ndarray) for array in state.values())
        target.load_state_dict(state)
    go(second, gradients[2:])
    assert np.array_equal(to_host(second[0]), to_host(whole[0]))
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
    flat = flatten_parameters(module)
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
    flat = flatten_gradients(module)
    assert flat.shape == (SIZE,) and flat.dtype == np.float64 and not to_host(flat).any()
    for _ in range(2):
        module.bias.accumulate(to_device(np.array([1.0, 2, 3]), device))
        module.weight.accumulate(to_device(np.full((2, 3), 0.5), device))
    assert to_host(flat).tolist() == [1] * 6 + [2, 4, 6] + [0] * 24


def test_a_replica_shares_the_flat_weights_and_not_the_gradients():
    module = mixed()
    flat = flatten_parameters(module)
    gradient = flatten_gradients(module)
    replica = module.replica()
    other = flatten_gradients(replica)
    flat[:] = 2
    for own, shared in zip(module.parameters(), replica.parameters()):
        assert shared.data is own.data
        assert (shared.data == 2).all()
    replica.bias.accumulate(np.ones(3))
    assert other.sum() == 3 and not gradient.any()
