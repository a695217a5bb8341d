"""A batch shared out among replicas gives the gradient of one pass over it."""

import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from minild.backend import to_host
from minild.errors import UserError
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


@pytest.fixture(params=[True, False], ids=["processes", "threads"])
def processes(request):
    if request.param and sys.platform != "linux":
        pytest.skip("forks on Linux only")
    return request.param


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_replicas_give_the_gradient_of_one_pass(case, count, processes, rng):
    make_model, make_objective = CASES[case]
    objective, model = make_objective(), make_model()
    flatten_parameters(model)
    with Replicas(model, objective.work, count, processes) as replicas:
        assert len(replicas.modules) == count
        for size in (7, 2, 5, 1):  # odd, fewer than replicas: what the last call left behind must not come back
            batch = objective.batch(rng, size, 0.7)
            expected, losses = one_pass(make_model, objective, batch)
            gradient, results = replicas.gradient(batch)
            require_equal(gradient, expected)
            assert len(results) == min(count, size)
            for name in losses:
                total = sum(float(part[name]) for part in results)
                assert total == pytest.approx(float(losses[name]), rel=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_repeated_batch_gives_the_same_gradient_in_threads_and_in_processes(rng):
    make_model, make_objective = CASES["diffusion"]
    objective = make_objective()
    batch = objective.batch(rng, 5, 0.0)
    gradients = []
    for processes in (False, sys.platform == "linux"):
        model = make_model()
        flatten_parameters(model)
        with Replicas(model, objective.work, 2, processes) as replicas:
            gradients += [replicas.gradient(batch)[0].copy() for _ in range(2)]
    assert gradients[0].any()
    for gradient in gradients[1:]:
        assert np.array_equal(gradient, gradients[0])


def test_processes_see_the_weights_change(processes, rng):
    make_model, make_objective = CASES["autoencoder"]
    objective, model = make_objective(), make_model()
    weights = flatten_parameters(model)
    batch = objective.batch(rng, 4, 0.0)
    with Replicas(model, objective.work, 2, processes) as replicas:
        before = replicas.gradient(batch)[0].copy()
        weights *= 0.5
        after = replicas.gradient(batch)[0].copy()
        expected = one_pass(lambda: model, objective, batch)[0]
    require_equal(after, expected)
    assert np.linalg.norm(after - before) > 0.1 * np.linalg.norm(before)


class Counter(Module):
    def __init__(self):
        self.total = Parameter((1,), 0)


def test_every_row_goes_to_one_replica_with_its_share(processes, rng):
    model = Counter().initialise(rng)
    flatten_parameters(model)

    def work(module, part, share):
        rows, labels = part
        assert labels.tolist() == [f"row {row}" for row in rows]
        module.total.accumulate(share * rows.mean(keepdims=True, dtype="f"))
        return rows.tolist(), share, os.getpid() if processes else id(module)

    rows = np.arange(8)
    with Replicas(model, work, 3, processes) as replicas:
        gradient, results = replicas.gradient((rows, np.array([f"row {row}" for row in rows])))
    assert [result[0] for result in results] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert [result[1] for result in results] == [2 / 8, 3 / 8, 3 / 8]
    assert len({result[2] for result in results}) == 3
    assert gradient == pytest.approx([rows.mean()])


def test_a_fault_comes_through_and_the_next_batch_is_well(processes, rng):
    model = Counter().initialise(rng)
    flatten_parameters(model)

    def work(module, part, share):
        if part[0][-1] == 3:
            raise ValueError("a part that cannot be")
        module.total.accumulate(np.ones(1, "f"))
        return part[0].tolist()

    with Replicas(model, work, 2, processes) as replicas:
        assert replicas.map(lambda i: i * i, range(9)) == [i * i for i in range(9)]
        with pytest.raises(ValueError, match="a part that cannot be"):
            replicas.gradient((np.arange(4),))
        gradient, results = replicas.gradient((np.arange(6),))
    assert gradient == [2] and results == [[0, 1, 2], [3, 4, 5]]


@pytest.fixture
def forked(rng):
    """Replicas of which one is a process; each answers with its rows and its process's number."""
    model = Counter().initialise(rng)
    flatten_parameters(model)

    def work(module, part, share):
        return part[0].tolist(), os.getpid()

    with Replicas(model, work, 2, processes=True) as replicas:
        yield replicas


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_an_answer_from_before_an_interrupt_is_dropped(forked, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(replicas_module._Helper, "answer", stop)
        forked.gradient((np.arange(4),))
    _, results = forked.gradient((np.arange(10, 14),))
    assert [rows for rows, _ in results] == [[10, 11], [12, 13]]


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_process_that_is_killed_is_told_in_one_line(forked):
    _, results = forked.gradient((np.arange(4),))
    os.kill(results[1][1], signal.SIGKILL)
    with pytest.raises(UserError, match=r"^a process of the training ended with -9: for want of memory"):
        forked.gradient((np.arange(4),))


def test_a_daemon_which_may_have_no_children_has_threads(monkeypatch, rng):
    model = Counter().initialise(rng)
    flatten_parameters(model)
    assert Replicas(model, None, 2).processes == (sys.platform == "linux")
    monkeypatch.setattr(replicas_module.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert not Replicas(model, None, 2).processes


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_ctrl_c_is_for_the_first_process_alone(forked):
    _, results = forked.gradient((np.arange(4),))
    os.kill(results[1][1], signal.SIGINT)
    assert forked.gradient((np.arange(4),))[1] == results


def test_a_device_has_one_replica():
    for make in (autoencoder, denoiser):
        model = make().to("double")
        flatten_parameters(model)
        with Replicas(model, None, 4) as replicas:
            assert len(replicas.modules) == 1
            assert not to_host(replicas.gradients[0]).any()
