"""minild.nn.module: names, replicas, inference, and several applications of one module."""

import threading

import numpy as np
import pytest

from minild.backend import to_device
from minild.engine.memory import in_inference
from minild.nn.attention import Transformer2DModel
from minild.nn.autoencoder_blocks import Decoder, Encoder
from minild.nn.layers import SILU, Linear
from minild.nn.module import Module, Parameter, add_gradients
from minild.nn.unet_blocks import CrossAttnDownBlock2D, CrossAttnUpBlock2D, UNetMidBlock2DCrossAttn


class Pair(Module):
    """Two linear layers in a list, with a gap as FeedForward has."""

    def __init__(self):
        self.net = [Linear(4, 3), None, Linear(3, 4, bias=False)]
        self.scale = Parameter((4,), 1.0)

    def forward(self, x):
        h, first = self.net[0].forward(x)
        h, second = self.net[2].forward(h)
        return h * self.scale.data, (first, second, None if in_inference() else h)

    def backward(self, dy, cache):
        first, second, h = cache
        self.scale.accumulate((dy * h).sum(axis=0))
        return self.net[0].backward(self.net[2].backward(dy * self.scale.data, second), first)


@pytest.fixture
def pair(rng):
    return Pair().initialise(rng).astype("float64")


def test_names_are_paths_of_attributes_and_positions(pair):
    assert [name for name, _ in pair.named_parameters()] == ["scale", "net.0.weight", "net.0.bias", "net.2.weight"]
    assert [name for name, _ in pair.children()] == ["net.0", "net.2"]
    assert pair.parameter_count() == 4 + 4 * 3 + 3 + 3 * 4


def test_blocks_carry_the_references_names():
    names = {name for name, _ in Transformer2DModel(8, 2, 6, groups=4).named_parameters()}
    block = "transformer_blocks.0."
    expected = {f"{module}.{part}" for module in ("norm", "proj_in", "proj_out") for part in ("weight", "bias")}
    expected |= {f"{block}norm{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")}
    expected |= {f"{block}attn{i}.to_{part}.weight" for i in (1, 2) for part in "qkv"}
    expected |= {f"{block}attn{i}.to_out.0.{part}" for i in (1, 2) for part in ("weight", "bias")}
    expected |= {f"{block}ff.net.{layer}.{part}" for layer in ("0.proj", "2") for part in ("weight", "bias")}
    assert names == expected


def test_a_seed_gives_the_same_weights_again():
    def drawn(seed):
        return [p.data for p in Pair().initialise(np.random.default_rng(seed)).parameters()]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[1], other[1])


def test_a_replica_shares_the_parameters_and_owns_its_gradients(pair, rng):
    x, dy = rng.standard_normal((2, 5, 4))
    pair.backward(dy, pair.forward(x)[1])
    before = [p.grad.copy() for p in pair.parameters()]
    replica = pair.replica()
    assert all(mine.data is theirs.data for mine, theirs in zip(replica.parameters(), pair.parameters()))
    assert all(p.grad is None for p in replica.parameters())
    replica.backward(dy, replica.forward(x)[1])
    replica.backward(dy, replica.forward(x)[1])
    for mine, theirs, grad in zip(replica.parameters(), pair.parameters(), before):
        np.testing.assert_array_equal(theirs.grad, grad)
        np.testing.assert_allclose(mine.grad, 2 * grad)
    pair.scale.data[:] = 5  # an optimiser writes in place
    assert (replica.scale.data == 5).all()


def test_gradients_add_up_until_they_are_zeroed(pair, rng):
    x, dy = rng.standard_normal((2, 5, 4))
    pair.backward(dy, pair.forward(x)[1])
    once = [p.grad.copy() for p in pair.parameters()]
    pair.backward(dy, pair.forward(x)[1])
    for p, grad in zip(pair.parameters(), once):
        np.testing.assert_allclose(p.grad, 2 * grad)
    pair.zero_grad()
    assert not any(p.grad.any() for p in pair.parameters())


def test_a_module_applied_twice_before_its_backwards(pair, rng):
    """y = f(x1) + f(x2) in either order of backwards: the sum of the gradients of two separate applications."""
    x1, x2, dy1, dy2 = rng.standard_normal((4, 5, 4))
    alone = []
    for x, dy in ((x1, dy1), (x2, dy2)):
        separate = pair.replica()
        dx = separate.backward(dy, separate.forward(x)[1])
        alone.append((dx, [p.grad for p in separate.parameters()]))
    for order in ((0, 1), (1, 0)):
        module = pair.replica()
        caches = [module.forward(x)[1] for x in (x1, x2)]
        for i in order:
            np.testing.assert_array_equal(module.backward((dy1, dy2)[i], caches[i]), alone[i][0])
        for p, first, second in zip(module.parameters(), alone[0][1], alone[1][1]):
            np.testing.assert_allclose(p.grad, first + second)


def arrays(cache):
    """Every array in a cache or an output, at any depth."""
    if isinstance(cache, (tuple, list)):
        return [array for part in cache for array in arrays(part)]
    return [cache] if isinstance(cache, np.ndarray) else []


class Spy(Module):
    """Records what the forward of the module within would have kept."""

    def __init__(self, module):
        self.module, self.kept = module, []

    def forward(self, *inputs):
        y, cache = self.module.forward(*inputs)
        self.kept.append(arrays(cache))
        return y, cache


def picture(rng, channels):
    return rng.standard_normal((2, 4, 6, channels), dtype="f")


def temb_and_context(rng):
    return rng.standard_normal((2, 5), dtype="f"), rng.standard_normal((2, 3, 6), dtype="f")


ATTENDING = {"temb_channels": 5, "groups": 4, "heads": 2, "context_width": 6}


@pytest.mark.parametrize(("module", "inputs"), [
    (Encoder(3, 4, [4, 8], layers=1, groups=4), lambda rng: [picture(rng, 3)]),
    (Decoder(2, 3, [4, 8], layers=1, groups=4), lambda rng: [picture(rng, 2)]),
    (CrossAttnDownBlock2D(4, 8, layers=1, downsample=True, **ATTENDING),
     lambda rng: [picture(rng, 4), *temb_and_context(rng)]),
    (UNetMidBlock2DCrossAttn(8, **ATTENDING), lambda rng: [picture(rng, 8), *temb_and_context(rng)]),
    (CrossAttnUpBlock2D(8, [4], 8, upsample=True, **ATTENDING),
     lambda rng: [picture(rng, 8), [picture(rng, 4)], *temb_and_context(rng)]),
], ids=["encoder", "decoder", "down", "middle", "up"])
def test_inference_keeps_nothing_and_gives_the_same(rng, module, inputs):
    inputs = inputs(rng)
    spy = Spy(module.initialise(rng))
    y = spy(*inputs)
    trained, _ = spy.forward(*inputs)
    assert spy.kept[0] == [] and len(spy.kept[1]) > 10
    for a, b in zip(arrays(y), arrays(trained), strict=True):
        np.testing.assert_array_equal(a, b)


class Outer(Module):
    """A call of one module within the forward of another, as a frozen encoder in a training step."""

    def __init__(self, inner):
        self.inner, self.layer, self.kept = inner, Linear(4, 4), []

    def forward(self, x):
        y, cache = self.layer.forward(self.inner(x))
        self.kept = arrays(cache)
        return y, cache


def test_a_call_within_a_call_restores_the_mode(pair, rng):
    outer = Outer(pair)
    outer.layer.initialise(rng).astype("float64")
    x = rng.standard_normal((5, 4))
    outer.forward(x)
    assert outer.kept  # training goes on after the inner call
    outer(x)
    assert not outer.kept  # and so does inference


def test_an_error_in_a_call_restores_the_mode(pair, rng):
    with pytest.raises(ValueError):
        pair(rng.standard_normal((5, 9)))
    assert arrays(pair.forward(rng.standard_normal((5, 4)))[1])


def test_inference_in_one_thread_is_training_in_another(pair, rng):
    x, kept = rng.standard_normal((5, 4)), []

    class Busy(Module):
        def forward(self, x):
            thread = threading.Thread(target=lambda: kept.extend(arrays(pair.forward(x)[1])))
            thread.start()
            thread.join()
            return pair.forward(x)

    Busy()(x)
    assert kept


def test_a_stateless_layer_serves_two_callers(rng):
    x1, x2, dy = rng.standard_normal((3, 2, 4))
    caches = [SILU.forward(x)[1] for x in (x1, x2)]
    first = SILU.backward(dy, caches[0])
    np.testing.assert_array_equal(first, SILU.backward(dy, SILU.forward(x1)[1]))
    assert not np.allclose(first, SILU.backward(dy, caches[1]))


def test_moving_and_casting_drop_the_gradients(device, pair, rng):
    x, dy = rng.standard_normal((2, 5, 4))
    pair.backward(dy, pair.forward(x)[1])
    pair.astype("float32").to(device)
    expected = type(to_device(np.zeros(1), device))
    assert all(p.grad is None and p.data.dtype == "float32" for p in pair.parameters())
    assert all(type(p.data) is expected for p in pair.parameters())


def test_add_gradients_takes_none_as_no_gradient():
    a, b = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    np.testing.assert_array_equal(add_gradients(a, b), [11, 22])
    assert add_gradients(None, b) is b and add_gradients(a, None) is a and add_gradients(None, None) is None
    np.testing.assert_array_equal(a, [1, 2])  # neither is written to


def test_a_layer_that_nobody_initialised_has_weights_of_its_own():
    """Once its memory was used as it came, with whatever was in it."""
    first, second = Linear(30, 20), Linear(30, 20)
    for layer in (first, second):
        assert np.abs(layer.weight.data).max() <= 30**-0.5 and layer.weight.data.std() > 0.05
        assert not layer.bias.data.any()
    assert not np.array_equal(first.weight.data, second.weight.data)
    np.testing.assert_array_equal(first(np.ones((2, 30), "f")), first(np.ones((2, 30), "f")))


def test_repr_is_a_tree_with_shapes_and_counts():
    assert repr(Pair()).splitlines() == [
        "Pair of scale (4,): 31 parameters",
        "  net.0: Linear of weight (4, 3), bias (3,)",
        "  net.2: Linear of weight (3, 4)",
    ]
    assert repr(SILU) == "Stateless: 0 parameters"
    assert "Parameter(4, 3)" in repr(Linear(4, 3).weight)


def test_a_module_without_a_forward_says_so():
    with pytest.raises(TypeError, match="Module defines no forward"):
        Module()(1)
