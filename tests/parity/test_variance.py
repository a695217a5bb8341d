"""DDPM with each of the reference's variances: samples from the same noise, and a whole pipeline of a learnt one."""

import json

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.diffusion import NoiseSchedule, ddpm
from minild.models import UNet2DConditionModel
from minild.pipelines.scheduler_config import read_scheduler, sampler_schedule
from minild.random import image_generators
from parity.reference import StableDiffusionPipeline, channels_first, channels_last, diffusers, torch
from parity.test_samplers import SHAPE, draw_as_ours, our_model, their_model

KINDS = ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"]


def told(kind, x, xp):
    """What the model says of the variance: a number above 0, or one between the two fixed variances."""
    return 0.05 * (1.2 + xp.sin(3 * x)) if kind == "learned" else xp.sin(3 * x)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_samples(kind, steps, prediction, spacing, tmp_path, monkeypatch):
    fields = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    fields |= {"prediction_type": prediction, "timestep_spacing": spacing, "variance_type": kind, "clip_sample": False}
    theirs = diffusers.DDPMScheduler(**fields)
    theirs.save_pretrained(tmp_path)
    latents = np.random.default_rng(5).standard_normal(SHAPE, np.float32)
    draw_as_ours(theirs, image_generators(1, 2), SHAPE[1:], monkeypatch)
    theirs.set_timesteps(steps)
    learnt, x = kind.startswith("learned"), channels_first(latents)
    for t in theirs.timesteps:
        output = their_model(x, t)
        x = theirs.step(torch.cat([output, told(kind, x, torch)], 1) if learnt else output, t, x).prev_sample

    def predict(z, t):
        return np.concatenate([our_model(z, t), told(kind, z, np)], axis=-1) if learnt else our_model(z, t)

    schedule, sampler = read_scheduler(tmp_path)
    assert sampler == "ddpm"
    schedule, settings = sampler_schedule(schedule.given, sampler)
    assert settings == {"variance_type": kind}
    *_, z = ddpm(predict, latents, schedule, steps, image_generators(1, 2), **settings)
    assert z.dtype == np.float32 and np.isfinite(z).all()
    np.testing.assert_allclose(z, channels_last(x), atol=1e-4 * max(1, np.abs(z).max()))


def test_the_reference_takes_the_root_of_a_logarithm():
    """Its "fixed_large_log" gives no numbers where β is below 1; ours is what the name says."""
    theirs = diffusers.DDPMScheduler(variance_type="fixed_large_log")
    theirs.set_timesteps(10)
    x = torch.ones(1, 1, 2, 2)
    assert torch.isnan(theirs.step(0 * x, theirs.timesteps[0], x).prev_sample).all()
    u = np.ones((1, 2, 2, 1))
    results = [
        next(ddpm(lambda z, t: 0 * z, u, NoiseSchedule(), 10, image_generators(0, 1), variance_type=kind))
        for kind in ("fixed_large", "fixed_large_log")
    ]
    np.testing.assert_array_equal(*results)


def learnt_pipeline():
    """tiny_pipeline's, whose U-Net tells a variance, too."""
    pipeline, rng = tiny_pipeline.make(), np.random.default_rng(4)
    unet = UNet2DConditionModel.from_config(pipeline.unet.config | {"out_channels": 4})
    for parameter in unet.parameters():
        deviation = 0.05 if parameter.data.ndim == 1 else parameter.data[..., 0].size ** -0.5
        parameter.data = (parameter.data + rng.standard_normal(parameter.data.shape) * deviation).astype("f")
    pipeline.unet, pipeline.schedule = unet, NoiseSchedule({"variance_type": "learned_range"})
    pipeline.sampler = "ddpm"
    return pipeline


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_whole_pipeline_draws_the_references_picture(guidance, tmp_path, monkeypatch):
    learnt_pipeline().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert (config["_class_name"], config["variance_type"]) == ("DDPMScheduler", "learned_range")
    ours = pipelines.load(tmp_path)
    latents = np.random.default_rng(2).standard_normal((2, 8, 12, 2), np.float32)
    prompts, f = ["a red circle", "a blue square above a star"], ours.vae.downsampling
    mine = ours.text_to_image(prompts, "grey", 10, guidance, seed=3, latents=latents)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    draw_as_ours(theirs.scheduler, image_generators(3, 2), latents.shape[1:], monkeypatch)
    expected = theirs(
        prompts,
        negative_prompt=["grey"] * 2,
        num_inference_steps=10,
        guidance_scale=guidance,
        latents=channels_first(latents),
        height=8 * f,
        width=12 * f,
        output_type="np",
    ).images
    assert expected.std() > 0.02
    np.testing.assert_allclose(mine, expected, atol=1e-4)
