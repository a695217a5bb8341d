"""UNet2DConditionModel.complete_config: lists that say one thing, and what is refused by name."""

import numpy as np
import pytest

from minild.errors import UserError
from minild.models import UNet2DConditionModel
from models.tiny import UNET

SWITCHES = ["center_input_sample", "class_embeddings_concat", "dual_cross_attention", "attention_type"]


def test_null_for_a_switch_is_off(rng):
    plain, ours = (UNet2DConditionModel.from_config(UNET | more) for more in ({}, dict.fromkeys(SWITCHES)))
    inputs = rng.standard_normal((1, 4, 4, 3), np.float32), np.array([5.0]), rng.standard_normal((1, 3, 6), np.float32)
    np.testing.assert_array_equal(ours(*inputs), plain(*inputs))


@pytest.mark.parametrize(("field", "value", "means"), [
    ("cross_attention_dim", [6, 6], 6),
    ("cross_attention_dim", (6, 6), 6),
    ("only_cross_attention", [False, True], [False, True]),
    ("transformer_layers_per_block", [1, 1], None),
    ("layers_per_block", [2, 1], [2, 1]),
    ("attention_head_dim", [1, 4], [1, 4]),
    ("mid_block_type", None, None),
    ("time_embedding_dim", 12, 12),
])
def test_a_field_that_the_reference_lets_be_a_list(field, value, means):
    model = UNet2DConditionModel.from_config(UNET | {field: value})
    assert model.config.get(field) == means


@pytest.mark.parametrize(("field", "value", "message"), [
    ("mid_block_type", "UNetMidBlock2D", "'UNetMidBlock2D' is not supported, use 'UNetMidBlock2DCrossAttn' or null"),
    ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn", ".* use 'UNetMidBlock2DCrossAttn' or null"),
    ("cross_attention_dim", [6, 8], r"\[6, 8\] is not supported, use one number"),
    ("cross_attention_dim", None, "None is not supported, use one number"),
    ("only_cross_attention", [False], r"\[False\] is not supported, use true or false, or 2 of them"),
    ("only_cross_attention", [1, 2], r"\[1, 2\] is not supported, use true or false, or 2 of them"),
    ("only_cross_attention", None, "None is not supported, use true or false"),
    ("transformer_layers_per_block", [1, 2], r"\[1, 2\] is not supported, use 1"),
    ("layers_per_block", [2, 1, 1], r"\[2, 1, 1\] is not supported, use one number, or 2"),
    ("attention_head_dim", [4], r"\[4\] is not supported, use one number, or 2"),
    ("attention_head_dim", None, "None is not supported, use one number"),
    ("num_attention_heads", 2, "2 is not supported, use None"),
    ("center_input_sample", True, "True is not supported, use False"),
    ("mid_block_scale_factor", 2, "2 is not supported, use 1"),
    ("norm_num_groups", None, "None is not supported, use one number"),
])
def test_what_is_not_supported_is_named(field, value, message):
    with pytest.raises(UserError, match=rf"^UNet2DConditionModel: {field} = {message}") as caught:
        UNet2DConditionModel.from_config(UNET | {field: value})
    assert "\n" not in str(caught.value)


def test_without_a_middle_there_are_no_weights_of_one():
    keys = UNet2DConditionModel.from_config(UNET | {"mid_block_type": None}).state_dict().keys()
    assert keys == {key for key in UNet2DConditionModel.from_config(UNET).state_dict() if not key.startswith("mid_")}
