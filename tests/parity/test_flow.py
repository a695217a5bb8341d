"""The flow's sampler against the reference's FlowMatchEulerDiscreteScheduler: times, samples, a whole pipeline."""

import json

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.diffusion import FLOW_CLASS, FlowSchedule, flow_euler
from minild.pipelines.scheduler_config import read_scheduler, sampler_schedule, write_scheduler
from minild.random import image_generators
from parity.reference import StableDiffusionPipeline, channels_first, channels_last, diffusers
from parity.test_samplers import SHAPE, draw_as_ours, our_model, their_model

SHIFTS = [0.5, 1.0, 1.7, 3.0, 12.0]


@pytest.mark.parametrize("train_steps", [1000, 50])
@pytest.mark.parametrize("shift", SHIFTS)
def test_times_for_every_number_of_steps(shift, train_steps):
    fields = {"shift": shift, "num_train_timesteps": train_steps}
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**fields)
    for steps in [*range(1, 51), train_steps]:
        theirs.set_timesteps(steps)
        times = np.array(FlowSchedule(fields).times(steps))
        np.testing.assert_allclose(times, theirs.sigmas.numpy(), rtol=1e-6, atol=1e-7, err_msg=f"{steps} steps")
        np.testing.assert_allclose(train_steps * times[:-1], theirs.timesteps.numpy(), rtol=1e-6)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("steps", [1, 7, 20, 50])
@pytest.mark.parametrize("shift", SHIFTS)
def test_samples(shift, steps, stochastic, tmp_path, monkeypatch):
    """As read from the reference's folder, and again as read from the one that we write."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, stochastic_sampling=stochastic)
    theirs.save_pretrained(tmp_path)
    latents = np.random.default_rng(5).standard_normal(SHAPE, np.float32)
    draw_as_ours(theirs, image_generators(1, 2), SHAPE[1:], monkeypatch)
    theirs.set_timesteps(steps)
    x = channels_first(latents)
    for t in theirs.timesteps:
        x = theirs.step(their_model(x, t), t, x).prev_sample
    for _ in range(2):
        schedule, sampler = read_scheduler(tmp_path)
        assert sampler == "flow-euler"
        own, settings = sampler_schedule(schedule.given, sampler)
        *_, z = flow_euler(our_model, latents, own, steps, image_generators(1, 2), **settings)
        assert z.dtype == np.float32
        np.testing.assert_allclose(z, channels_last(x), atol=1e-5)
        write_scheduler(tmp_path, schedule, sampler)
    again = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path)
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == {
        k: v for k, v in theirs.config.items() if k[0] != "_"
    }


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_whole_pipeline_draws_the_references_picture(guidance, tmp_path):
    """The reference's StableDiffusionPipeline asks its scheduler for a scale of the first noise, which this class has
    none of: it is 1.
    """
    made = tiny_pipeline.make()
    made.schedule, made.sampler = FlowSchedule({"shift": 3.0}), "flow-euler"
    made.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["scheduler"] == ["diffusers", FLOW_CLASS]
    ours = pipelines.load(tmp_path)
    latents = np.random.default_rng(2).standard_normal((2, 8, 12, 2), np.float32)
    prompts, f = ["a red circle", "a blue square above a star"], ours.vae.downsampling
    mine = ours.text_to_image(prompts, "grey", 12, guidance, latents=latents)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler.init_noise_sigma = 1.0
    expected = theirs(
        prompts,
        negative_prompt=["grey"] * 2,
        num_inference_steps=12,
        guidance_scale=guidance,
        latents=channels_first(latents),
        height=8 * f,
        width=12 * f,
        output_type="np",
    ).images
    assert expected.std() > 0.02
    np.testing.assert_allclose(mine, expected, atol=1e-4)
