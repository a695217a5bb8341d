"""CLIPTextModel with its last layers left out."""

import numpy as np
import pytest

from minild.gradcheck import check_module
from minild.models import CLIPTextModel
from minild.nn.module import Module
from models.tiny import TEXT

LAYERS = 3


class Skipping(Module):
    """A text model without its last two layers, for the checker."""

    def __init__(self, model):
        self.model = model

    def named_parameters(self, prefix=""):
        skipped = tuple(f"encoder.layers.{i}." for i in range(LAYERS - 2, LAYERS))
        return ((name, p) for name, p in self.model.named_parameters(prefix) if not name.startswith(skipped))

    def forward(self, token_ids):
        return self.model.forward(token_ids, clip_skip=2)

    def backward(self, dy, cache):
        return self.model.backward(dy, cache)


@pytest.fixture
def model():
    return CLIPTextModel.from_config(TEXT | {"num_hidden_layers": LAYERS}, seed=4)


@pytest.fixture
def token_ids(rng):
    return rng.integers(0, 11, (2, 5))


@pytest.mark.parametrize("clip_skip", range(LAYERS + 1))
def test_it_is_a_model_of_fewer_layers(model, token_ids, clip_skip):
    fewer = CLIPTextModel.from_config(TEXT | {"num_hidden_layers": LAYERS - clip_skip})
    fewer.load_state_dict({key: value for key, value in model.state_dict().items() if key in fewer.state_dict()})
    np.testing.assert_array_equal(model(token_ids, clip_skip), fewer(token_ids))


def test_gradients_pass_by_what_is_left_out(model, token_ids):
    check_module(Skipping(model), {"token_ids": token_ids}, samples=10)
    assert all(parameter.grad is None for layer in model.encoder.layers[1:] for parameter in layer.parameters())


@pytest.mark.parametrize("clip_skip", [-1, LAYERS + 1])
def test_what_cannot_be_skipped(model, token_ids, clip_skip):
    with pytest.raises(ValueError, match=f"clip_skip: expected 0 to the 3 layers, got {clip_skip}"):
        model(token_ids, clip_skip)
