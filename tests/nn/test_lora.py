"""Low-rank updates of a layer, beside it and in it; modules around others; learnt vectors."""

import numpy as np
import pytest
from models.tiny import UNET, unet_inputs

from minild.gradcheck import check_module
from minild.models import UNet2DConditionModel
from minild.nn.around import Recomputed
from minild.nn.embeddings import LearntVectors
from minild.nn.layers import Conv2d, Embedding, Linear
from minild.nn.lora import LowRank, Updated
from minild.nn.module import Module
from minild.training.tuning import recompute

LAYERS = {
    "linear": (lambda: Linear(5, 3), (2, 7, 5)),
    "3 x 3, stride 2": (lambda: Conv2d(3, 4, stride=2), (2, 7, 6, 3)),
    "1 x 1": (lambda: Conv2d(3, 4, 1, padding=0), (2, 5, 6, 3)),
}


class Trained(Module):
    """A layer as its training sees it: the updates alone."""

    def __init__(self, layer):
        self.held = (layer,)

    def named_parameters(self, prefix=""):
        for name, (update, _) in self.held[0].updates.items():
            yield from update.named_parameters(f"{prefix}{name}.")

    def forward(self, x):
        return self.held[0].forward(x)

    def backward(self, dy, cache):
        return self.held[0].backward(dy, cache)


def updated(layer, rng, dtype="float64"):
    """The layer with two updates, of rank 2 and 1, drawn anew."""
    whole = Updated(layer.initialise(rng).astype(dtype).freeze())
    whole.updates = {"a": [LowRank(layer, 2, 3), 0.7], "b": [LowRank(layer, 1), -1.3]}
    for update, _ in whole.updates.values():
        for parameter in update.parameters():
            parameter.data = rng.standard_normal(parameter.shape).astype(dtype)
    return whole


@pytest.mark.parametrize("case", LAYERS)
def test_gradients_by_differences(rng, case):
    make, shape = LAYERS[case]
    whole = updated(make(), rng)
    check_module(Trained(whole), {"x": rng.standard_normal(shape)})
    assert all(parameter.grad is None for parameter in whole.parameters())


@pytest.mark.parametrize("case", LAYERS)
def test_the_sum_is_its_formula(rng, case):
    """By the layer's own op, with W + 0.7 · 3/2 · A B - 1.3 · A' B' for its weight."""
    make, shape = LAYERS[case]
    whole, x = updated(make(), rng), rng.standard_normal(shape)
    y, layer = whole(x), whole.module
    for (update, weight), factor in zip(whole.updates.values(), (3 / 2, 1)):
        a, b = update.lora_A.weight.data, update.lora_B.weight.data
        difference = np.einsum("...ir,ro->...io", a, b.reshape(-1, b.shape[-1]))
        layer.weight.data = layer.weight.data + weight * factor * difference
    np.testing.assert_allclose(y, layer(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_merged_it_is_the_same_and_unmerged_the_weight_is_back(rng, dtype):
    whole, x = updated(Linear(5, 3), rng, dtype), rng.standard_normal((4, 5)).astype("f" if dtype != "float64" else "d")
    before, y = whole.module.weight.data.copy(), whole(x)
    whole.merge()
    whole.merge()  # once is enough
    tolerance = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-2}[dtype]
    np.testing.assert_allclose(whole(x), y, rtol=tolerance, atol=tolerance)
    assert whole.module.weight.data.dtype == dtype and not np.array_equal(whole.module.weight.data, before)
    whole.unmerge()
    np.testing.assert_array_equal(whole.module.weight.data, before)
    np.testing.assert_array_equal(whole(x), y)


def test_an_update_begins_as_nothing(rng):
    layer = Linear(5, 3).initialise(rng)
    whole, x = Updated(layer), rng.standard_normal((4, 5)).astype("f")
    whole.updates["new"] = [LowRank(layer, 2).initialise(rng), 1.0]
    np.testing.assert_array_equal(whole(x), layer(x))
    assert whole.updates["new"][0].lora_A.weight.data.any()


def test_what_stands_around_a_layer_has_its_names(rng):
    layer = Linear(5, 3)
    for around in (Updated(layer), Recomputed(layer), Recomputed(Updated(layer))):
        assert [name for name, _ in around.named_parameters()] == ["weight", "bias"]


def test_a_replica_shares_the_arrays_and_owns_the_gradients(rng):
    whole = updated(Linear(5, 3), rng)
    twin, x = whole.replica(), rng.standard_normal((4, 5))
    y, cache = twin.forward(x)
    twin.backward(np.ones_like(y), cache)
    for name in "ab":
        mine, its = whole.updates[name][0].lora_A.weight, twin.updates[name][0].lora_A.weight
        assert mine.data is its.data and mine.grad is None and its.grad.any()


def test_a_unet_that_is_computed_twice_has_the_same_gradients(rng):
    """Bit for bit, of every parameter."""
    unet = UNet2DConditionModel.from_config(UNET)
    for parameter in unet.parameters():
        parameter.data = rng.standard_normal(parameter.shape) / np.sqrt(max(1, np.prod(parameter.shape[:-1])))
    inputs, names = unet_inputs(rng, 3), [name for name, _ in unet.named_parameters()]
    y, cache = unet.forward(**inputs)
    dy = rng.standard_normal(y.shape)
    expected = unet.backward(dy, cache)
    gradients = {name: parameter.grad for name, parameter in unet.named_parameters()}
    for parameter in unet.parameters():
        parameter.grad = None
    recompute(unet)
    recompute(unet)  # once is enough
    assert [name for name, _ in unet.named_parameters()] == names
    again, cache = unet.forward(**inputs)
    np.testing.assert_array_equal(again, y)
    for ours, theirs in zip(unet.backward(dy, cache), expected):
        np.testing.assert_array_equal(ours, theirs)
    for name, parameter in unet.named_parameters():
        np.testing.assert_array_equal(parameter.grad, gradients[name], err_msg=name)


class Vectors(Module):
    """LearntVectors as its training sees it."""

    def __init__(self, layer):
        self.held, self.vectors = (layer,), layer.vectors

    def forward(self, ids):
        return self.held[0].forward(ids)

    def backward(self, dy, cache):
        return self.held[0].backward(dy, cache)


def test_learnt_vectors(rng):
    """Ids 6 and 7 have vectors of their own; 6 stands twice, 7 not at all in the second row."""
    table = Embedding(9, 4).initialise(rng).astype("float64").freeze()
    whole = LearntVectors(table, 6, rng.standard_normal((2, 4)))
    ids = np.array([[6, 1, 7], [6, 8, 0]])
    check_module(Vectors(whole), {"ids": ids})
    y = whole(ids)
    np.testing.assert_array_equal(y[0, 0], whole.vectors.data[0])
    np.testing.assert_array_equal(y[0, 2], whole.vectors.data[1])
    np.testing.assert_array_equal(y[1, 1:], table.weight.data[[8, 0]])
    assert table.weight.grad is None and [name for name, _ in whole.named_parameters()] == ["weight"]
