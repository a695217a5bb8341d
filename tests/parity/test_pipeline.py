"""A whole pipeline folder in the reference's StableDiffusionPipeline: the same initial latents, the same picture."""

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.data.location import data_path
from parity.reference import StableDiffusionPipeline, channels_first, torch

PROMPTS = ["a red circle above a blue square", "A crow's nest, in GREEN! " * 8]  # the second is cut
SHIPPED = [index.parent for index in sorted(data_path("pretrained").glob("*/model_index.json"))]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a pipeline with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline.make(record=tiny_pipeline.RECORD).save_pretrained(folder)
    return folder


def both_draw(folder, reference, side, negative_prompt, rng):
    """(ours, theirs): the prompts' pictures in [0, 1], (N, H, W, 3), from latents (h, w) = side; DDIM, 8 steps."""
    ours = pipelines.load(folder)
    f, c = ours.vae.downsampling, ours.vae.config["latent_channels"]
    latents = rng.standard_normal((len(PROMPTS), *side, c), np.float32)
    mine = ours.text_to_image(PROMPTS, negative_prompt, 8, 7.5, sampler="ddim", latents=latents)
    theirs = reference(
        PROMPTS,
        negative_prompt=[negative_prompt] * len(PROMPTS),
        num_inference_steps=8,
        guidance_scale=7.5,
        latents=channels_first(latents),
        height=f * side[0],
        width=f * side[1],
        output_type="np",
    )
    return mine, theirs.images


def open_reference(folder):
    reference = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    reference.to(torch.float32)  # it keeps the float16 of the shipped weights, in which not all of it computes
    assert type(reference.scheduler).__name__ == "DDIMScheduler"
    reference.set_progress_bar_config(disable=True)
    return reference


def assert_same_pictures(mine, theirs):
    assert mine.shape == theirs.shape and mine.dtype == theirs.dtype == np.float32
    assert theirs.std() > 0.02  # there is something to compare
    assert np.abs(mine - theirs).max() <= 2 / 255


@pytest.mark.parametrize("negative_prompt", ["", "blurry"])
def test_a_tiny_pipeline_draws_the_references_picture(tiny, rng, negative_prompt):
    mine, theirs = both_draw(tiny, open_reference(tiny), (8, 12), negative_prompt, rng)
    assert mine.shape == (2, 16, 24, 3)
    assert_same_pictures(mine, theirs)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_pipeline_draws_the_references_picture(folder, rng):
    reference = open_reference(folder)
    side = reference.unet.config.sample_size
    assert_same_pictures(*both_draw(folder, reference, (side, side), "", rng))


def test_we_open_what_the_reference_writes(tiny, tmp_path, rng):
    """Its own folder differs: no vocab.json, no prefix to the text model's keys, a configuration with every field."""
    reference = open_reference(tiny)
    reference.save_pretrained(tmp_path)
    assert_same_pictures(*both_draw(tmp_path, reference, (4, 4), "", rng))
    drawn = [pipelines.load(each).text_to_image("a star", steps=3) for each in (tiny, tmp_path)]
    np.testing.assert_array_equal(*drawn)
