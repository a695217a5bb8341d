"""The models at Stable Diffusion's own configs have its tensors (figures of the published checkpoints)."""

import pytest

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
