"""The models at Stable Diffusion's own configs have its tensors (figures of the published checkpoints)."""

import numpy as np
import pytest

from minild.errors import UserError
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel

STABLE_DIFFUSION_1 = [
    (UNet2DConditionModel, {"cross_attention_dim": 768}, 859_520_964, 686),
    (AutoencoderKL, {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}, 83_653_863, 248),
    (CLIPTextModel, {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, 123_060_480, 196),
]


@pytest.mark.parametrize("model_class, config, parameters, tensors", STABLE_DIFFUSION_1)
def test_parameter_count_is_stable_diffusions(model_class, config, parameters, tensors):
    model = model_class(model_class.complete_config(config))  # not initialised: its pages are never touched
    assert model.parameter_count() == parameters
    assert len(model.parameters()) == tensors


def test_unknown_and_unsupported_fields_are_named():
    with pytest.raises(UserError, match="unknown field 'colour'"):
        UNet2DConditionModel.from_config({"colour": 3})
    with pytest.raises(UserError, match="conv_in_kernel = 5 is not supported"):
        UNet2DConditionModel.from_config({"conv_in_kernel": 5})


TINY_AUTOENCODER = {"block_out_channels": [8, 16], "norm_num_groups": 4, "latent_channels": 2}


def test_a_saved_model_reads_back_bit_for_bit(tmp_path):
    model = AutoencoderKL.from_config(TINY_AUTOENCODER, seed=3)
    model.save_pretrained(tmp_path)
    again = AutoencoderKL.from_pretrained(tmp_path)
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, again.state_dict()[name])


def test_missing_unknown_and_misshapen_weights_are_listed():
    model = AutoencoderKL.from_config(TINY_AUTOENCODER)
    state = model.state_dict()
    state["stray.weight"] = state.pop("quant_conv.bias")
    state["post_quant_conv.bias"] = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match=r"missing quant_conv\.bias") as caught:
        model.load_state_dict(state)
    assert "unknown stray.weight" in str(caught.value)
    assert "post_quant_conv.bias has shape (5,), expected (2,)" in str(caught.value)
