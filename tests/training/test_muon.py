"""Muon: the orthogonal step against the singular value decomposition, the rest against AdamW's own test."""

import math

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.training import AdamW, Muon, StagePreset, optimizer
from minild.training.muon import QUINTICS, STEP, optimizer_for, orthogonalise
from training.test_optimizer import SIZE, adamw, flat_of, give, mixed

MATRICES = ((slice(0, 6), (2, 3)), (slice(9, 29), (4, 5)))  # of mixed(): the linear weight, the kernel (1, 2, 2, 5)


def polynomial(s):
    """What the four turns make of singular values."""
    for a, b, c in QUINTICS:
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 5), (5, 1), (1, 1)])
def test_orthogonalise_keeps_the_singular_vectors_and_evens_the_values(device, rng, shape):
    x = rng.standard_normal(shape)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    got = to_host(orthogonalise(to_device(x, device)))
    np.testing.assert_allclose(got, (u * polynomial(s / np.linalg.norm(s))) @ v, atol=1e-11)


def test_the_singular_values_end_within_the_stated_bounds():
    values = polynomial(np.linspace(0.003, 1, 100_001))
    assert 0.80 < values.min() < 0.81 and 1.20 < values.max() < 1.21


def test_each_turn_is_the_polynomial_nearest_to_one_on_what_the_one_before_leaves():
    """Chebyshev's criterion: with three coefficients, it is off by as much at four places, to either side in turns."""
    low, high = 0.003, 1.0
    for a, b, c in QUINTICS:
        within = np.sqrt(np.sort(np.roots([5 * c, 3 * b, a]).real))  # where the slope a + 3 b s² + 5 c s⁴ is 0
        s = np.array([low, *within, high])
        off = a * s + b * s**3 + c * s**5 - 1
        assert low < within[0] < within[1] < high
        np.testing.assert_allclose(off, off[3] * np.array([-1, 1, -1, 1]), atol=6e-3)  # four digits
        low, high = 1 - off[3], 1 + off[3]


def test_float32_follows_float64_where_few_directions_rule(rng):
    u, v = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((90, 30), (30, 30)))
    x = (u * np.geomspace(1, 1e-6, 30)) @ v.T
    low = orthogonalise(x.astype(np.float32))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, orthogonalise(x), atol=2e-4)


def test_a_matrix_without_gradient_stays():
    assert not orthogonalise(np.zeros((3, 2))).any()


@pytest.mark.parametrize("largest", [1e-25, 1e-30, 1e-44])
def test_of_next_to_nothing_comes_next_to_nothing(rng, largest):
    """A momentum whose gradient has stopped gets there; in float32 its squares are 0."""
    x = (largest * rng.standard_normal((6, 4))).astype(np.float32)
    assert x.any() and abs(orthogonalise(x)).max() < 0.1


def test_matrices_turn_and_the_rest_is_adamw(device, rng):
    module = mixed(device)
    before, gradients, rates = flat_of(module), rng.standard_normal((4, SIZE)), [0.1, 0.3, 0.05, 0.2]
    optimiser = Muon(module, momentum=0.9, beta1=0.8, beta2=0.95, weight_decay=0.4)
    for gradient, rate in zip(gradients, rates):
        optimiser.zero_grad()
        give(module, gradient)
        with count_synchronisations() as waits:
            optimiser.step(rate)
        assert waits.reasons == []
        assert np.array_equal(flat_of(module, "grad"), gradient)
    expected = np.array([adamw(before[i], gradients[:, i], rates, 0.0, 0.8, 0.95, 1e-8) for i in range(SIZE)])
    for piece, shape in MATRICES:
        weights, m = before[piece].reshape(shape), np.zeros(shape)
        for gradient, rate in zip(gradients[:, piece], rates):
            g = gradient.reshape(shape)
            m = 0.9 * m + 0.1 * g
            turned = orthogonalise(0.1 * g + 0.9 * m)
            weights = (1 - 0.4 * rate) * weights - rate * STEP * math.sqrt(max(shape)) * turned
        expected[piece] = weights.reshape(-1)
    np.testing.assert_allclose(flat_of(module), expected, rtol=1e-10)


def test_a_step_is_about_as_long_as_adamws(rng):
    """The root mean square of what one step changes, at the same rate; AdamW's first is 1 exactly, later ones less."""
    module = mixed()
    before = flat_of(module)
    give(module, rng.standard_normal(SIZE))
    Muon(module, weight_decay=0.0).step(0.1)
    for piece, _ in MATRICES:
        assert np.sqrt(np.mean((flat_of(module) - before)[piece] ** 2)) / (0.1 * STEP) == pytest.approx(0.95, abs=0.27)


def test_small_pieces_give_the_same_numbers(rng, monkeypatch):
    gradient = rng.standard_normal(SIZE)

    def train():
        module = mixed()
        optimiser = Muon(module)
        give(module, gradient)
        optimiser.step(0.1)
        return flat_of(module)

    whole = train()
    monkeypatch.setattr(optimizer, "CHUNK", 2)
    assert np.array_equal(whole, train())


def test_it_goes_on_from_its_state(rng):
    gradients = rng.standard_normal((4, SIZE))

    def go(optimiser, module, some):
        for gradient in some:
            optimiser.zero_grad()
            give(module, gradient)
            optimiser.step(0.1)

    whole, first, second = mixed(), mixed(), mixed()
    go(Muon(whole), whole, gradients)
    begun = Muon(first)
    go(begun, first, gradients[:2])
    resumed = Muon(second)
    resumed.weights[:] = begun.weights
    resumed.load_state_dict(begun.state_dict())
    go(resumed, second, gradients[2:])
    assert np.array_equal(flat_of(second), flat_of(whole))


def test_a_preset_names_it():
    assert type(optimizer_for(mixed(), StagePreset(0.1, 1, optimizer="muon"))) is Muon
    assert type(optimizer_for(mixed(), StagePreset(0.1, 1))) is AdamW
