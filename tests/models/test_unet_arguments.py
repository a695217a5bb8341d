"""UNet2DConditionModel names a wrong argument instead of failing somewhere below."""

import pytest

from minild.models import UNet2DConditionModel
from models.tiny import UNET, unet_inputs


@pytest.fixture
def inputs(rng):
    return {name: x.astype("f") for name, x in unet_inputs(rng, UNET["in_channels"]).items()}


@pytest.mark.parametrize(("name", "wrong", "message"), [
    ("t", lambda t: 500, "expected an array, got 500"),  # once an AttributeError
    ("t", lambda t: t[:1], r"expected shape \(2,\), got \(1,\)"),
    ("t", lambda t: t[:, None], r"expected shape \(2,\), got \(2, 1\)"),
    ("x", lambda x: x[0], r"expected \(N, h, w, c\)"),
    ("x", lambda x: x[..., :1], "expected shape"),
    ("x", lambda x: x[:, :0], "at least one"),
    ("context", lambda c: c[..., 1:], "expected shape"),
    ("x", lambda x: x.astype("f8"), "expected dtype float32 like the weights, got float64"),
    ("context", lambda c: c.astype("f2"), "expected dtype float32 like the weights, got float16"),
    ("context", lambda c: c[:, :0], "at least one"),
    ("t", lambda t: t.astype(bool), "expected numbers"),
    ("context", lambda c: None, "expected an array, got None"),
])
def test_a_wrong_argument_is_named(inputs, name, wrong, message):
    model = UNet2DConditionModel.from_config(UNET)
    model(**inputs)
    with pytest.raises(ValueError, match=rf"^{name}: .*{message}"):
        model(**inputs | {name: wrong(inputs[name])})
