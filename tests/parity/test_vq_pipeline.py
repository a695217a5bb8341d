"""A pipeline with a VQModel in the reference: read by both from folders of either, drawn to the same picture.

Its StableDiffusionPipeline draws the latents; their decoding it cannot call, for its VQModel.decode takes no generator,
so its VQModel is called here as the pipeline would. Its LDMTextToImagePipeline draws all of it.
"""

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.models import CLIPTextModel, VQModel
from minild.tokenizer import CLIPTokenizer
from parity.reference import StableDiffusionPipeline, channels_first, channels_last, diffusers, torch
from parity.test_pipeline import assert_same_pictures, open_reference

PROMPTS = ["a red circle above a blue square", "a green star"]
SIDE = (8, 12)


def vq_pipeline(length=tiny_pipeline.LENGTH):
    """A tiny pipeline whose context is `length` tokens."""
    pipe = tiny_pipeline.make_vq()
    pipe.tokenizer = CLIPTokenizer.train(tiny_pipeline.CAPTIONS, vocab_size=640, max_length=length)
    pipe.text_encoder = CLIPTextModel.from_config(pipe.text_encoder.config | {"max_position_embeddings": length})
    rng = np.random.default_rng(2)
    for parameter in pipe.text_encoder.parameters():
        parameter.data = parameter.data + 0.3 * rng.standard_normal(parameter.data.shape, np.float32)
    return pipe


@pytest.fixture
def latents(rng):
    return rng.standard_normal((2, *SIDE, 2), np.float32)


def draw_ours(folder, latents):
    pipe = pipelines.load(folder)
    return pipe.text_to_image(PROMPTS, steps=8, guidance_scale=4.0, sampler="ddim", latents=latents)


SETTINGS = {"num_inference_steps": 8, "guidance_scale": 4.0, "height": 16, "width": 24}


def draw_theirs(reference, latents):
    """Its pipeline's latents, decoded as the end of its __call__ does."""
    z = reference(PROMPTS, latents=channels_first(latents), output_type="latent", **SETTINGS).images
    with torch.no_grad():
        y = reference.vae.decode(z / reference.vae.config.scaling_factor, return_dict=False)[0]
    return np.clip(channels_last(y) / 2 + 0.5, 0, 1)


@pytest.mark.parametrize("writer", ["minild", "reference"])
def test_a_folder_of_either_is_the_same_picture_in_both(tmp_path, latents, writer):
    vq_pipeline().save_pretrained(tmp_path / "minild")
    reference = open_reference(tmp_path / "minild")
    assert isinstance(reference.vae, diffusers.VQModel)
    reference.save_pretrained(tmp_path / "reference")
    mine = draw_ours(tmp_path / writer, latents)
    assert_same_pictures(mine, draw_theirs(reference, latents))
    codes = reference.vae.quantize(channels_first(latents) / 0.7)[2][2]
    assert len(codes.unique()) > 5


def test_every_weight_of_the_references_folder_is_read_to_the_bit(tmp_path):
    vq_pipeline().save_pretrained(tmp_path / "ours")
    reference = StableDiffusionPipeline.from_pretrained(tmp_path / "ours", safety_checker=None, local_files_only=True)
    reference.save_pretrained(tmp_path / "theirs")
    ours, theirs = pipelines.load(tmp_path / "theirs").vae, reference.vae.state_dict()
    assert isinstance(ours, VQModel) and ours.state_dict().keys() == theirs.keys()
    for key, array in ours.state_dict().items():
        assert array.tobytes() == theirs[key].numpy().tobytes(), key
    assert ours.config["scaling_factor"] == reference.vae.config.scaling_factor == 0.7


def test_the_references_stable_diffusion_alone_cannot_call_its_vqmodel(tmp_path, latents):
    """Why its decoding is written out above. Should this ever draw, README is to say so."""
    vq_pipeline().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="generator"):
        open_reference(tmp_path)(PROMPTS, latents=channels_first(latents), output_type="np", **SETTINGS)


def test_the_references_latent_diffusion_pipeline_draws_the_same_picture(tmp_path, latents):
    vq_pipeline(length=77).save_pretrained(tmp_path)  # it asks for 77 tokens, whatever the text encoder takes
    parts = open_reference(tmp_path)
    pipe = diffusers.LDMTextToImagePipeline(
        vqvae=parts.vae, bert=parts.text_encoder, tokenizer=parts.tokenizer, unet=parts.unet, scheduler=parts.scheduler
    )
    pipe.set_progress_bar_config(disable=True)
    size = {"height": 8 * SIDE[0], "width": 8 * SIDE[1]}  # it counts the latents as if f were 8, whatever is drawn
    theirs = pipe(PROMPTS, latents=channels_first(latents), output_type="np", eta=0.0, **SETTINGS | size).images
    assert_same_pictures(draw_ours(tmp_path, latents), theirs)
