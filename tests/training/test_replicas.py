"""A batch shared out among replicas gives the gradient of one pass over it."""

import os
import signal
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from minild import using
from minild.engine import current
from minild.errors import UserError
from minild.nn.module import Module, Parameter
from minild.training import replicas as replicas_module
from minild.training.flat import flatten
from minild.training.replicas import Replicas
from training.small import CASES, VQ_CASES, autoencoder, denoiser


def one_pass(make_model, objective, batch):
    """Gradient and losses of the whole batch through the model itself."""
    model = make_model()
    flat = flatten(model, "grad").array
    losses, cache = objective.forward(model, batch)
    objective.backward(1.0, cache)
    return flat.copy(), losses


def gradient_of(replicas, batch):
    """A copy of the batch's gradient, which is added into the model's, and the losses."""
    flat = flatten(replicas.modules[0], "grad").array
    flat.fill(0)
    losses = replicas.gradient(batch)
    return flat.copy(), losses


def require_equal(gradient, expected):
    assert np.linalg.norm(gradient - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.fixture(params=[True, False], ids=["processes", "threads"])
def processes(request):
    if request.param and sys.platform != "linux":
        pytest.skip("forks on Linux only")
    return request.param


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CASES | VQ_CASES)
def test_replicas_give_the_gradient_of_one_pass(case, count, processes, rng):
    make_model, make_objective = (CASES | VQ_CASES)[case]
    objective = make_objective()
    with Replicas(make_model(), objective, count, processes) as replicas:
        assert len(replicas.modules) == count
        for size in (7, 2, 5, 1):  # odd, fewer than replicas: what the last call left behind must not come back
            batch = objective.batch(rng, size, 0.7)
            expected, expected_losses = one_pass(make_model, objective, batch)
            gradient, losses = gradient_of(replicas, batch)
            require_equal(gradient, expected)
            rows, expected_rows = (some.pop("rows", {}) for some in (losses, expected_losses))
            for name, row in expected_rows.items():  # of the whole batch, in its order
                np.testing.assert_allclose(rows[name], row, atol=1e-5)
            assert rows.keys() == expected_rows.keys() and ("codes" in rows) == (case in VQ_CASES)
            assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
                {name: float(loss) for name, loss in expected_losses.items()}, rel=1e-5
            )


def test_a_batch_is_added_to_the_gradient_that_is_there(processes, rng):
    make_model, make_objective = CASES["autoencoder"]
    objective, model = make_objective(), make_model()
    batch = objective.batch(rng, 4, 0.0)
    with Replicas(model, objective, 2, processes) as replicas:
        once, _ = gradient_of(replicas, batch)
        replicas.gradient(batch)
    require_equal(flatten(model, "grad").array, 2 * once)


def test_a_repeated_batch_gives_the_same_gradient_in_threads_and_in_processes(rng):
    make_model, make_objective = CASES["diffusion"]
    objective = make_objective()
    batch = objective.batch(rng, 5, 0.0)
    gradients = []
    for processes in (False, sys.platform == "linux"):
        with Replicas(make_model(), objective, 2, processes) as replicas:
            gradients += [gradient_of(replicas, batch)[0] for _ in range(2)]
    assert gradients[0].any()
    for gradient in gradients[1:]:
        assert np.array_equal(gradient, gradients[0])


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_processes_see_the_weights_change(processes, rng, how):
    make_model, make_objective = CASES["autoencoder"]
    objective, model = make_objective(), make_model()
    batch = objective.batch(rng, 4, 0.0)
    with Replicas(model, objective, 2, processes) as replicas:
        before = gradient_of(replicas, batch)[0]
        for parameter in model.parameters():
            if how == "in place":
                parameter.data *= 0.5
            else:
                parameter.data = 0.5 * parameter.data
        after = gradient_of(replicas, batch)[0]
        model.zero_grad()
        expected = one_pass(lambda: model, objective, batch)[0]
    require_equal(after, expected)
    assert np.linalg.norm(after - before) > 0.1 * np.linalg.norm(before)


class Counter(Module):
    def __init__(self):
        self.total = Parameter((1,), 0)


class Counting:
    """An objective of Counter that only looks at its rows, numbers below 16; its loss tells forward(rows)."""

    def __init__(self, look, gradient=lambda rows: 1.0):
        self.look, self.gradient = look, gradient

    def forward(self, module, batch):
        return {"loss": self.look(*batch)}, (module, batch[0])

    def backward(self, dloss, cache):
        module, rows = cache
        module.total.accumulate(np.full(1, dloss * self.gradient(rows), "f"))


def at(rows, value=1.0):
    """(16,): the value at the place of each row."""
    places = np.zeros(16)
    places[rows] = value
    return places


def test_every_row_goes_to_one_replica_with_its_share(processes, rng):
    def look(rows, labels):
        assert labels.tolist() == [f"row {row}" for row in rows]
        return np.stack([at(rows), at(rows, os.getpid() if processes else threading.get_ident())])

    rows = np.arange(8)
    batch = rows, np.array([f"row {row}" for row in rows])
    with Replicas(Counter().initialise(rng), Counting(look, np.mean), 3, processes) as replicas:
        gradient, losses = gradient_of(replicas, batch)
    shares = np.repeat([2 / 8, 3 / 8, 3 / 8], [2, 3, 3])
    assert np.array_equal(losses["loss"][0, :8], shares)
    if processes:
        assert len(set(np.round(losses["loss"][1, :8] / shares))) == 3
    assert gradient == pytest.approx([rows.mean()])


def test_a_fault_comes_through_and_the_next_batch_is_well(processes, rng):
    def look(rows):
        if rows[-1] == 3:
            raise ValueError("a part that cannot be")
        return at(rows)

    with Replicas(Counter().initialise(rng), Counting(look), 2, processes) as replicas:
        with pytest.raises(ValueError, match="a part that cannot be"):
            replicas.gradient((np.arange(4),))
        gradient, losses = gradient_of(replicas, (np.arange(6),))
    assert gradient == [1] and np.array_equal(losses["loss"], at(np.arange(6), 0.5))


def look_at_the_choice(rows):
    """What the loss tells of the ops in force: 4 within using("textbook"), else 1; a replica has half of the rows."""
    return at(rows, 4.0 if current().textbook else 1.0)


def test_what_is_chosen_around_the_replicas_is_chosen_in_them(processes, rng):
    batch = (np.arange(4),)
    with Replicas(Counter().initialise(rng), Counting(look_at_the_choice), 2, processes) as replicas:
        first = list(replicas._helpers)
        assert np.array_equal(replicas.gradient(batch)["loss"], at(np.arange(4), 0.5))
        with using("textbook"):
            assert np.array_equal(replicas.gradient(batch)["loss"], at(np.arange(4), 2.0))
            second = list(replicas._helpers)
            assert np.array_equal(replicas.gradient(batch)["loss"], at(np.arange(4), 2.0))
            assert replicas._helpers == second  # nothing new was chosen
        assert np.array_equal(replicas.gradient(batch)["loss"], at(np.arange(4), 0.5))
        assert all(helper.process.exitcode is not None for helper in first + second)  # they have ended


def test_a_choice_made_before_the_replicas_is_theirs(processes, rng):
    with using("textbook"), Replicas(Counter().initialise(rng), Counting(look_at_the_choice), 2, processes) as replicas:
        assert np.array_equal(replicas.gradient((np.arange(4),))["loss"], at(np.arange(4), 2.0))


@pytest.fixture
def forked(rng):
    """Replicas of which one is a process; the loss tells each row's process, halved, as is its share."""
    objective = Counting(lambda rows: at(rows, os.getpid()))
    with Replicas(Counter().initialise(rng), objective, 2, processes=True) as replicas:
        yield replicas


def process_of(forked, row):
    return int(2 * forked.gradient((np.arange(4),))["loss"][row])


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_an_answer_from_before_an_interrupt_is_dropped(forked, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(replicas_module._Helper, "answer", stop)
        forked.gradient((np.arange(4),))
    assert np.flatnonzero(forked.gradient((np.arange(10, 14),))["loss"]).tolist() == [10, 11, 12, 13]


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_process_that_is_killed_is_told_in_one_line(forked):
    assert process_of(forked, 0) == os.getpid() != process_of(forked, 3)
    os.kill(process_of(forked, 3), signal.SIGKILL)
    with pytest.raises(UserError, match=r"^a process of the training ended with -9: for want of memory"):
        forked.gradient((np.arange(4),))


def test_a_daemon_which_may_have_no_children_has_threads(monkeypatch, rng):
    model = Counter().initialise(rng)
    assert Replicas(model, None, 2).processes == (sys.platform == "linux")
    monkeypatch.setattr(replicas_module.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert not Replicas(model, None, 2).processes


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_ctrl_c_is_for_the_first_process_alone(forked):
    number = process_of(forked, 3)
    os.kill(number, signal.SIGINT)
    assert process_of(forked, 3) == number


def test_a_device_has_one_replica():
    for make in (autoencoder, denoiser):
        assert len(Replicas(make().to("double"), None, 4).modules) == 1
