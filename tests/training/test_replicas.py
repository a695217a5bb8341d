"""A batch shared out among replicas gives the gradient of one pass over it."""

import numpy as np
import pytest

from minild.backend import to_host
from minild.nn.module import Module, Parameter
from minild.training import replicas as replicas_module
from minild.training.optimizer import flatten_gradients, flatten_parameters
from minild.training.replicas import Replicas
from training.small import CASES, autoencoder, denoiser


def one_pass(make_model, objective, batch):
    """Gradient and loss of the whole batch through the model itself."""
    model = make_model()
    flat = flatten_gradients(model)
    losses = objective.work(model, batch, 1.0)
    return flat, losses


def require_equal(gradient, expected):
    assert np.linalg.norm(gradient - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_replicas_give_the_gradient_of_one_pass(case, count, rng):
    make_model, make_objective = CASES[case]
    objective, model = make_objective(), make_model()
    flatten_parameters(model)
    with Replicas(model, count) as replicas:
        assert len(replicas.modules) == count
        for size in (7, 2, 5, 1):  # odd, fewer than replicas: what the last call left behind must not come back
            batch = objective.batch(rng, size, 0.7)
            expected, losses = one_pass(make_model, objective, batch)
            gradient, results = replicas.gradient(objective.work, batch)
            require_equal(gradient, expected)
            assert len(results) == min(count, size)
            for name in losses:
                total = sum(float(part[name]) for part in results)
                assert total == pytest.approx(float(losses[name]), rel=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_repeated_batch_gives_the_same_gradient(rng):
    make_model, make_objective = CASES["diffusion"]
    objective, model = make_objective(), make_model()
    flatten_parameters(model)
    batch = objective.batch(rng, 5, 0.0)
    with Replicas(model, 2) as replicas:
        first = replicas.gradient(objective.work, batch)[0].copy()
        second = replicas.gradient(objective.work, batch)[0]
    assert np.array_equal(first, second)


class Counter(Module):
    def __init__(self):
        self.total = Parameter((1,), 0)


def test_every_row_goes_to_one_replica_with_its_share(rng):
    model = Counter().initialise(rng)
    flatten_parameters(model)
    seen = []

    def work(module, part, share):
        rows, labels = part
        assert labels.tolist() == [f"row {row}" for row in rows]
        seen.append((rows[0], rows.tolist(), share, module))
        module.total.accumulate(share * rows.mean(keepdims=True, dtype="f"))
        return rows.sum()

    rows = np.arange(8)
    with Replicas(model, 3) as replicas:
        gradient, sums = replicas.gradient(work, (rows, np.array([f"row {row}" for row in rows])))
    seen.sort(key=lambda entry: entry[0])
    assert [rows for _, rows, _, _ in seen] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert [share for _, _, share, _ in seen] == [2 / 8, 3 / 8, 3 / 8]
    assert len({id(module) for *_, module in seen}) == 3
    assert sums == [1, 9, 18]
    assert gradient == pytest.approx([rows.mean()])


@pytest.mark.parametrize(("size", "expected"), [
    (1, [1]), (31, [31]), (32, [16, 16]), (47, [23, 24]), (60, [20, 20, 20]),
])
def test_unless_told_how_many_there_are_as_many_replicas_as_have_enough_to_do(size, expected, rng, monkeypatch):
    monkeypatch.setattr(replicas_module, "core_count", lambda: 3)
    model = Counter().initialise(rng)
    flatten_parameters(model)

    def work(module, part, share):
        module.total.accumulate(np.ones(1, "f"))
        return len(part[0])

    with Replicas(model) as replicas:
        gradient, lengths = replicas.gradient(work, (np.arange(size),))
    assert lengths == expected and gradient == [len(expected)]


def test_map_keeps_the_order_and_a_fault_comes_through(rng):
    model = Counter().initialise(rng)
    flatten_parameters(model)

    def work(module, part, share):
        raise ValueError("a part that cannot be")

    with Replicas(model, 2) as replicas:
        assert replicas.map(lambda i: i * i, range(9)) == [i * i for i in range(9)]
        with pytest.raises(ValueError, match="a part that cannot be"):
            replicas.gradient(work, (np.arange(4),))


def test_a_device_has_one_replica():
    for make in (autoencoder, denoiser):
        model = make().to("double")
        flatten_parameters(model)
        with Replicas(model, 4) as replicas:
            assert len(replicas.modules) == 1
            assert not to_host(replicas.gradients[0]).any()
