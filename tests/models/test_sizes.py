"""The models at published configs have the tensors of the checkpoints: Stable Diffusion 1, latent diffusion's VQ-f4,
VGG-16's convolutions and PatchGAN."""

import pytest

from minild.models import VGG, AutoencoderKL, CLIPTextModel, PatchDiscriminator, UNet2DConditionModel, VQModel

VQ_F4 = {"block_out_channels": [128, 256, 512], "layers_per_block": 2, "num_vq_embeddings": 8192}
PUBLISHED = [
    (UNet2DConditionModel, {"cross_attention_dim": 768}, 859_520_964, 686),
    (AutoencoderKL, {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}, 83_653_863, 248),
    (CLIPTextModel, {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, 123_060_480, 196),
    (VQModel, VQ_F4, 55_322_782, 205),
    (VGG, {}, 14_714_688, 26),
    (PatchDiscriminator, {}, 2_765_633, 13),
]


@pytest.mark.parametrize("model_class, config, parameters, tensors", PUBLISHED)
def test_parameter_count_is_that_of_the_checkpoint(model_class, config, parameters, tensors):
    model = model_class(model_class.complete_config(config))  # not initialised: its pages are never touched
    assert model.parameter_count() == parameters
    assert len(model.parameters()) == tensors
