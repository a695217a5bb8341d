"""What leads a pipeline, taken from a data set."""

from types import SimpleNamespace

import numpy as np
import pytest

from minild.data.emoji import Emoji
from minild.errors import UserError
from minild.pipelines.inputs import inputs, picture_size, random_masks


def test_random_masks_leave_something_and_draw_something():
    masks = random_masks(np.random.default_rng(0), (400, 16, 24))
    shares = masks.mean(axis=(1, 2))
    assert shares.min() >= 1 / 16 and np.mean(shares == 1) == pytest.approx(0.1, abs=0.05)
    assert 0.3 < shares.mean() < 0.8


def test_a_set_without_maps_is_refused():
    pipe = SimpleNamespace(kinds=("text", "semantic map"))
    with pytest.raises(UserError, match="emoji has no semantic maps, as shapes have"):
        inputs(pipe, Emoji(), [0], np.zeros((1, 32, 32, 3), np.uint8), np.random.default_rng(0))


@pytest.mark.parametrize("record, default, size", [({"size": 16}, (8, 8), 16), ({}, (8, 8), 8), ({}, None, 32)])
def test_the_size_of_the_training_is_found(record, default, size):
    assert picture_size(SimpleNamespace(record=record, default_size=default)) == size
