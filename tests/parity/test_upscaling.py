"""Upscaling beside the reference's StableDiffusionUpscalePipeline: the same noises, the same picture."""

import importlib

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.models import AutoencoderKL, UNet2DConditionModel
from minild.pipelines.low_resolution import picture_noise, usual_augmentation
from parity.reference import channels_first, diffusers, torch
from parity.test_samplers import reference_of

PROMPTS = ["a red circle above a blue square", "a green star"]
MODULE = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale"
SEED = 7

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny pipeline that upscales, with the one scaling factor that the reference keeps."""
    pipe, rng = tiny_pipeline.make(), np.random.default_rng(3)
    pipe.vae = AutoencoderKL.from_config(pipe.vae.config | {"latent_channels": 4, "scaling_factor": 0.08333})
    fields = {"in_channels": 7, "out_channels": 4, "num_class_embeds": 351}
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | fields)
    for model in (pipe.vae, pipe.unet):
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.data.shape, np.float32)
    pipe.record, pipe.augmentation = {"condition": "text+low resolution"}, usual_augmentation()
    folder = tmp_path_factory.mktemp("upscaler")
    pipe.save_pretrained(folder)
    (folder / "minild.json").unlink()
    return folder


@pytest.mark.parametrize(("sampler", "guidance"), [
    ("ddim", 1.0), ("ddim", 5.0), ("euler", 5.0), ("pndm", 5.0), ("dpmpp-2m", 5.0), ("unipc", 5.0),
])
def test_the_same_picture(folder, rng, monkeypatch, tmp_path, sampler, guidance):
    level = 137 if guidance > 1 else 20
    pictures, latents = rng.random((2, 4, 4, 3), np.float32), rng.standard_normal((2, 4, 4, 4), np.float32)
    noise = picture_noise([SEED, SEED + 1], (4, 4, 3))
    module = importlib.import_module(MODULE)
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: channels_first(noise))
    theirs = diffusers.StableDiffusionUpscalePipeline.from_pretrained(folder)
    theirs.scheduler = reference_of(theirs.scheduler.config, sampler, tmp_path)
    theirs.set_progress_bar_config(disable=True)
    assert theirs.config.max_noise_level == 350 and type(theirs.low_res_scheduler).__name__ == "DDPMScheduler"
    settings = {"noise_level": level, "guidance_scale": guidance}
    drawn = theirs(
        PROMPTS,
        image=channels_first(pictures),
        num_inference_steps=5,
        latents=channels_first(latents),
        output_type="np",
        **settings,
    ).images
    ours = pipelines.load(folder)
    mine = ours.condition_to_image(
        pictures, prompts=PROMPTS, steps=5, sampler=sampler, seed=SEED, latents=latents, **settings
    )
    assert mine.shape == drawn.shape == (2, 8, 8, 3) and mine.std() > 0.05
    np.testing.assert_allclose(mine, drawn, atol=1e-4)
    other = ours.condition_to_image(
        pictures, prompts=PROMPTS, steps=5, sampler=sampler, seed=SEED, latents=latents, guidance_scale=guidance
    )
    assert level == 20 or abs(other - mine).max() > 1e-3  # the level matters


def test_the_references_folder_opens(folder, tmp_path):
    theirs = diffusers.StableDiffusionUpscalePipeline.from_pretrained(folder)
    theirs.save_pretrained(tmp_path)
    pipe = pipelines.load(tmp_path)
    assert pipe.kinds == ("text", "low resolution") and pipe.augmentation.highest == 350
    betas = theirs.low_res_scheduler.betas
    np.testing.assert_allclose(pipe.augmentation.schedule.betas, betas.numpy(), rtol=1e-4)
    assert torch.is_tensor(betas)
