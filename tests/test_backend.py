"""Devices and crossings; and the CuPy double that keeps the others honest."""

import device_double
import numpy as np
import pytest
from device_double import DeviceArray, count_synchronisations, xp

from minild import backend
from minild.errors import UserError

X = np.arange(6.0).reshape(2, 3)


def test_round_trip(device):
    x = backend.to_device(X, device)
    assert backend.device_of(x) == device
    assert backend.get_array_module(x) is backend.get_device(device).xp
    np.testing.assert_array_equal(backend.to_host(x), X)


def test_unknown_device_is_the_users_mistake():
    with pytest.raises(UserError, match="tpu"):
        backend.to_device(X, "tpu")
    with pytest.raises(ValueError, match="list"):
        backend.device_of([1, 2])


def test_double_computes_as_numpy():
    x = device_double.to_device(X)
    expected = np.exp(X) @ X.T - 2 / (X + 1).sum(axis=1)
    np.testing.assert_array_equal((xp.exp(x) @ x.T - 2 / (x + 1).sum(axis=1)).get(), expected)
    np.testing.assert_array_equal((np.float64(3) * x).get(), 3 * X)
    y = x[:, 1:]
    y += 10
    assert x.get()[0, 1] == 11  # a view, and written in place
    total = x.sum()
    total += 1
    assert float(total) == X.sum() + 41


def test_double_keeps_reductions_on_the_device():
    x = device_double.to_device(X)
    for value in (x.sum(), xp.max(x), x[0, 0], x.mean(axis=0)):
        assert isinstance(value, DeviceArray)


@pytest.mark.parametrize("mistake", [
    lambda x: np.asarray(x),
    lambda x: np.exp(x),
    lambda x: np.sum(x),
    lambda x: np.concatenate([x, x]),
    lambda x: x + X,
    lambda x: X + x,
    lambda x: xp.add(x, X),
    lambda x: xp.concatenate([x, X]),
    lambda x: xp.asarray(X),
    lambda x: x.__setitem__(0, X[0]),
    lambda x: x[np.array([0])],
    lambda x: x.__iadd__(X),
])
def test_double_refuses_host_and_device_mixed(mistake):
    with pytest.raises(TypeError):
        mistake(device_double.to_device(X))


def test_double_has_what_cupy_has():
    pytest.importorskip("cupy")
    x = device_double.to_device(X)
    with pytest.raises(AttributeError, match="CuPy has no"):
        _ = xp.nditer
    with pytest.raises(TypeError, match="CuPy"):
        xp.sum(x, where=x > 1)
    with pytest.raises(TypeError, match="CuPy"):
        x.sum(initial=1.0)
    with pytest.raises(AttributeError, match="drawn on the host"):
        _ = xp.random


def test_double_counts_synchronisations():
    x = device_double.to_device(X)
    with count_synchronisations() as counter:
        y = xp.sqrt(x).sum(axis=0).max()
        x[x > 1] = 0
    assert counter.count == 0
    with count_synchronisations() as counter:
        float(y)
        bool(y > 0)
        y.get()
        y.item()
        x[x > 1]
    assert counter.reasons == ["float", "bool", "get", "item", "boolean index"]
