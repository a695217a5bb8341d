"""minild.using: the textbook, or a reader's own pair, in force everywhere; and the trial that such a pair must pass."""

from pathlib import Path

import numpy as np
import pytest
from models.tiny import AUTOENCODER, TEXT, UNET, VQ, autoencoder_inputs, unet_inputs

from minild import models, ops, using
from minild.engine import calls, current, inference, run, table
from minild.engine.cores import side_by_side
from minild.engine.trial import require_same
from minild.errors import UserError
from minild.nn import Conv2d, GroupNorm, Linear, ResnetBlock2D, Transformer2DModel
from minild.pipelines import load


class Counted:
    """The textbook's pair of a name, counting its calls."""

    def __init__(self, name):
        self.textbook, self.forwards, self.backwards = table.OPS[name], 0, 0

    def op(self, *arguments, **settings):
        self.forwards += 1
        return self.textbook.op(*arguments, **settings)

    def op_backward(self, dy, cache):
        self.backwards += 1
        return self.textbook.op_backward(dy, cache)

    @property
    def pair(self):
        return self.op, self.op_backward


def test_textbook_runs_nothing_else(rng, monkeypatch):
    asked = []
    monkeypatch.setattr(table.Op, "implementation", lambda self, *a: asked.append(self))
    model = models.UNet2DConditionModel.from_config(UNET)
    inputs = {name: x.astype("f") for name, x in unet_inputs(rng, 3).items()}
    with using("textbook"):
        y, cache = model.forward(**inputs)
        model.backward(np.ones_like(y), cache)
        model(**inputs)
    assert asked == []
    model(**inputs)
    assert asked


def test_the_backward_goes_with_its_forward(rng):
    """Once a switch around the forward said nothing of the backward, which chose anew."""
    x = rng.standard_normal((3, 16, 16, 32), np.float32)
    layer = Conv2d(32, 32)
    with using("textbook"):
        y, call = layer.forward(x)
    assert call.op_backward is ops.conv2d_backward
    _, fast = layer.forward(x)
    with using("textbook"):
        assert fast.op_backward is not ops.conv2d_backward
        fast.backward(np.ones_like(y))


def groups_of(model):
    """The number of the model's normalisations over groups."""
    return sum(isinstance(m, GroupNorm) for m in walk(model))


def walk(module):
    yield module
    for _, child in module.children():
        yield from walk(child)


MODELS = {
    "unet": lambda rng: (models.UNet2DConditionModel.from_config(UNET), unet_inputs(rng, 3).values()),
    "vae": lambda rng: (models.AutoencoderKL.from_config(AUTOENCODER), autoencoder_inputs(rng).values()),
    "vq": lambda rng: (models.VQModel.from_config(VQ), [rng.standard_normal((2, 6, 4, 3))]),
}


def ones_like(y):
    return tuple(map(ones_like, y)) if isinstance(y, tuple) else np.ones_like(y)


@pytest.mark.parametrize("name", MODELS)
def test_a_group_norm_of_ones_own_is_in_every_layer_of_every_model(rng, name):
    model, inputs = MODELS[name](rng)
    inputs = [x.astype("f") for x in inputs]
    mine = Counted("group_norm")
    with using(group_norm=mine.pair):
        y, cache = model.forward(*inputs)
        model.backward(ones_like(y), cache)
        assert mine.forwards == mine.backwards == groups_of(model) > 5
        model(*inputs)
    assert mine.forwards == 2 * groups_of(model)
    model(*inputs)
    assert mine.forwards == 2 * groups_of(model)


@pytest.mark.parametrize(("name", "module", "shapes", "times"), [
    ("silu", ResnetBlock2D(4, 8, temb_channels=5, groups=4), [(2, 4, 6, 4), (2, 5)], 3),
    ("group_norm_silu", ResnetBlock2D(4, 8, temb_channels=5, groups=4), [(2, 4, 6, 4), (2, 5)], 2),
    ("conv2d", ResnetBlock2D(4, 8, temb_channels=5, groups=4), [(2, 4, 6, 4), (2, 5)], 3),
    ("softmax", Transformer2DModel(8, 2, 6, groups=4), [(2, 4, 6, 8), (2, 3, 6)], 2),
    ("attention", Transformer2DModel(8, 2, 6, groups=4), [(2, 4, 6, 8), (2, 3, 6)], 2),
    ("gelu", Transformer2DModel(8, 2, 6, groups=4), [(2, 4, 6, 8), (2, 3, 6)], 1),
    ("geglu", Transformer2DModel(8, 2, 6, groups=4), [(2, 4, 6, 8), (2, 3, 6)], 1),
    ("layer_norm", Transformer2DModel(8, 2, 6, groups=4), [(2, 4, 6, 8), (2, 3, 6)], 3),
])
def test_an_op_within_a_composite_is_replaced_too(rng, name, module, shapes, times):
    mine, inputs = Counted(name), [rng.standard_normal(shape, np.float32) for shape in shapes]
    y, cache = module.forward(*inputs)
    expected = module.replica().backward(y, cache)
    with using(**{name: mine.pair}):
        z, cache = module.forward(*inputs)
    got = module.replica().backward(y, cache)
    assert (mine.forwards, mine.backwards) == (times, times)
    np.testing.assert_allclose(z, y, atol=2e-5)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_what_is_replaced_changes_the_result(rng):
    """So that the counting above is not all: SiLU for ReLU."""

    def relu(x):
        return np.maximum(x, 0), x

    def relu_backward(dy, x):
        return dy * (x > 0)

    x, block = rng.standard_normal((2, 4, 6, 4)), ResnetBlock2D(4, 4, groups=4).astype("float64")
    with using(silu=(relu, relu_backward)):
        y, cache = block.forward(x)
        dx, _ = block.backward(np.ones_like(y), cache)
        step = 1e-6 * rng.standard_normal(x.shape)
        slope = (block(x + step) - block(x - step)).sum() / 2
    assert slope == pytest.approx((dx * step).sum(), rel=1e-4)
    assert np.abs(block(x) - y).max() > 0.05


def test_choices_nest_and_end(rng):
    mine, other = Counted("linear"), Counted("silu")
    layer, x = Linear(3, 2), rng.standard_normal((4, 3), np.float32)
    with using("textbook"):
        with using(linear=mine.pair):
            with using(silu=other.pair):
                layer(x)
                assert current().textbook and set(current().own) == {"linear", "silu"}
        assert current().textbook and not current().own
    assert current() == calls.current() and not current().textbook
    with pytest.raises(ZeroDivisionError), using("textbook"):
        raise ZeroDivisionError
    assert not current().textbook
    assert mine.forwards == 1


def test_it_holds_for_threads_that_the_work_is_handed_to(rng):
    mine, x = Counted("silu"), rng.standard_normal((2, 3))
    with using(silu=mine.pair), side_by_side() as together:
        list(together(lambda _: run(ops.silu, x), range(4)))
    assert mine.forwards == 4


@pytest.mark.parametrize(("words", "own", "message"), [
    (("exact",), {}, "unknown 'exact'"),
    ((), {"grup_norm": (ops.silu, ops.silu)}, "'grup_norm' is no op, use one of linear, conv2d"),
    ((), {"silu": ops.silu}, "silu must be a pair of functions"),
    ((), {"silu": (ops.silu, None)}, "silu must be a pair of functions"),
])
def test_what_cannot_be_chosen_is_named(words, own, message):
    with pytest.raises(ValueError, match=message), using(*words, **own):
        pass


def test_the_emoji_pipeline_draws_the_same_picture_by_the_textbook():
    pipe = load("emoji")
    fast = pipe.text_to_image("red apple", steps=6, seed=3)
    with using("textbook"):
        plain = pipe.text_to_image("red apple", steps=6, seed=3)
    assert 0 < np.abs(plain - fast).max() < 1 / 255


def test_the_readers_own_op_of_the_readme():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    block = readme.split("### Your own op")[1].split("```python\n")[1].split("```")[0]
    scope = {}
    exec(block, scope)
    ours = load("emoji").text_to_image("red apple", steps=10)
    assert 0 < np.abs(scope["pictures"] - ours).max() < 1e-3


@pytest.mark.parametrize("name", table.OPS)
def test_the_library_passes_the_trial(name):
    require_same(name, table.OPS[name].op, table.OPS[name].op_backward)


SPARE = np.empty((2, 5, 6), np.float32)


@pytest.mark.parametrize(("op", "op_backward", "message"), [
    (lambda x: (1.01 * ops.silu(x)[0], x), ops.silu_backward, "silu: y is wrong: off by"),
    (lambda x: (ops.silu(x)[0][:1], x), ops.silu_backward, r"silu: y has shape \(1, 5, 6\), expected \(2, 5, 6\)"),
    (lambda x: (ops.silu(x)[0].astype(float), x), ops.silu_backward, "silu: y has dtype float64, expected float32"),
    (lambda x: (x.__imul__(ops.silu(x)[0] / x), x), ops.silu_backward, "silu writes to its arguments"),
    (ops.silu, lambda dy, cache: ops.silu_backward(dy, cache) + 0 * dy.__imul__(2), "silu_backward writes to dy"),
    (ops.silu, lambda dy, cache: np.multiply(1, ops.silu_backward(dy, cache), out=SPARE), "same array at every call"),
    (lambda x: ops.silu(x)[0], ops.silu_backward, "silu must return y, cache: it returns ndarray"),
    (ops.silu, lambda dy, cache: -ops.silu_backward(dy, cache), "silu_backward: gradient is wrong"),
    (ops.silu, lambda dy, cache: (dy, dy), "silu_backward must return 1 gradients: it returns 2"),
    (ops.silu, lambda dy, cache: None, "silu_backward: gradient must be an array, got NoneType"),
    (ops.silu, lambda dy, cache: dy * np.nan, "silu_backward: gradient is wrong"),
])
def test_a_wrong_pair_is_told_in_one_line(op, op_backward, message):
    with pytest.raises(UserError, match=message):
        require_same("silu", op, op_backward)


def test_nothing_is_kept_under_inference_by_ones_own_op_either(rng):
    mine, x = Counted("linear"), rng.standard_normal((4, 3), np.float32)
    with using(linear=mine.pair), inference():
        assert Linear(3, 2).forward(x)[1] is None


def test_text_encoder_and_its_causal_attention_by_the_textbook(rng):
    model, ids = models.CLIPTextModel.from_config(TEXT), rng.integers(0, 11, (2, 5))
    with using("textbook"):
        plain = model(ids)
    np.testing.assert_allclose(plain, model(ids), atol=1e-5)
