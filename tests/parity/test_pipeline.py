"""A whole pipeline folder in the reference's StableDiffusionPipeline: the same initial latents, the same picture."""

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.data.location import data_path
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from parity.reference import StableDiffusionPipeline, channels_first, torch

PROMPTS = ["a red circle above a blue square", "A crow's nest, in GREEN! " * 8]  # the second is cut
SHIPPED = [index.parent for index in sorted(data_path("pretrained").glob("*/model_index.json"))]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a pipeline with random weights, three layers in the text encoder."""
    folder = tmp_path_factory.mktemp("tiny")
    pipe = tiny_pipeline.make(record=tiny_pipeline.RECORD)
    pipe.text_encoder = CLIPTextModel.from_config(pipe.text_encoder.config | {"num_hidden_layers": 3})
    rng = np.random.default_rng(1)
    for parameter in pipe.text_encoder.parameters():  # at its own small weights every layer is nearly the identity
        parameter.data = parameter.data + 0.3 * rng.standard_normal(parameter.data.shape, np.float32)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The folder of a pipeline as deep as Stable Diffusion: f = 8, and a U-Net of four levels; random weights."""
    folder = tmp_path_factory.mktemp("deep")
    pipe = tiny_pipeline.make()
    four = {
        "block_out_channels": [8, 8, 16, 16],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
    eight = {
        "block_out_channels": [4, 4, 8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | four)
    pipe.vae = AutoencoderKL.from_config(pipe.vae.config | eight)
    rng = np.random.default_rng(2)
    for model in (pipe.unet, pipe.vae):
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.data.shape, np.float32)
    pipe.save_pretrained(folder)
    return folder


def both_draw(folder, reference, side, rng, count=1, negative_prompt=("", ""), prompts=PROMPTS, **settings):
    """(ours, theirs): `count` pictures of each prompt in [0, 1], (N, H, W, 3), from latents (h, w) = side; 8 steps."""
    ours = pipelines.load(folder)
    f, c = ours.vae.downsampling, ours.vae.config["latent_channels"]
    latents = rng.standard_normal((count * len(prompts), *side, c), np.float32)
    settings = {"guidance_scale": 7.5, **settings}
    several, negatives = ([text for text in texts for _ in range(count)] for texts in (prompts, negative_prompt))
    mine = ours.text_to_image(several, negatives, 8, sampler="ddim", latents=latents, **settings)
    theirs = reference(
        list(prompts),
        negative_prompt=list(negative_prompt),
        num_images_per_prompt=count,
        num_inference_steps=8,
        latents=channels_first(latents),
        height=f * side[0],
        width=f * side[1],
        output_type="np",
        **settings,
    )
    return mine, theirs.images


def open_reference(folder):
    reference = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    reference.to(torch.float32)  # it keeps the float16 of the shipped weights, in which not all of it computes
    assert type(reference.scheduler).__name__ == "DDIMScheduler"
    if not hasattr(reference.text_encoder, "text_model"):  # transformers 5 has no such level; clip_skip still names it
        object.__setattr__(reference.text_encoder, "text_model", reference.text_encoder)
    reference.set_progress_bar_config(disable=True)
    return reference


def assert_same_pictures(mine, theirs):
    assert mine.shape == theirs.shape and mine.dtype == theirs.dtype == np.float32
    assert theirs.std() > 0.02  # there is something to compare
    error = np.abs(mine - theirs).max()
    assert error <= 1e-4, f"off by {error:.3g}"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"negative_prompt": ("blurry", "blurry")},
        {"negative_prompt": ("blurry", "a blue square")},
        {"count": 2, "negative_prompt": ("blurry", "")},
        {"clip_skip": 1},
        {"clip_skip": 3, "negative_prompt": ("blurry", "")},
        {"guidance_rescale": 0.7},
        {"guidance_rescale": 1.0, "guidance_scale": 30.0},
        {"count": 2, "clip_skip": 2, "guidance_rescale": 0.3, "guidance_scale": 3.0},
        {"negative_prompt": ("blurry", ""), "guidance_scale": 1.0},
        {"negative_prompt": ("blurry", ""), "guidance_scale": 0.5},
        {"negative_prompt": ("blurry", ""), "guidance_scale": 0.0, "guidance_rescale": 0.7},
        {"negative_prompt": ("blurry", ""), "guidance_scale": -2.0},
        {"negative_prompt": ("blurry", ""), "guidance_scale": 1.01},
    ],
    ids=str,
)
def test_a_tiny_pipeline_draws_the_references_picture(tiny, rng, settings):
    mine, theirs = both_draw(tiny, open_reference(tiny), (8, 12), rng, **settings)
    assert mine.shape == (2 * settings.get("count", 1), 16, 24, 3)
    assert_same_pictures(mine, theirs)


@pytest.mark.parametrize("side", [(9, 8), (8, 13), (5, 7), (1, 1), (3, 20)], ids=str)
def test_any_multiple_of_f_is_the_references_picture(deep, rng, side):
    """9 x 8 positions are 72 x 64 pixels."""
    mine, theirs = both_draw(deep, open_reference(deep), side, rng)
    assert mine.shape == (2, 8 * side[0], 8 * side[1], 3)
    assert_same_pictures(mine, theirs)


@pytest.mark.parametrize(
    "settings", [{"clip_skip": 1}, {"clip_skip": 3}, {"guidance_rescale": 0.7}, {"guidance_scale": 0.0}], ids=str
)
def test_those_settings_matter_to_the_reference(tiny, settings):
    """So that the comparison above says something."""
    reference, latents = open_reference(tiny), np.random.default_rng(3).standard_normal((1, 8, 12, 2), np.float32)

    def draw(**settings):
        latents_first = channels_first(latents)
        return reference("a star", num_inference_steps=3, latents=latents_first, output_type="np", **settings).images

    assert np.abs(draw(height=16, width=24) - draw(height=16, width=24, **settings)).max() > 0.01


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_pipeline_draws_the_references_picture(folder, rng):
    reference = open_reference(folder)
    side = reference.unet.config.sample_size
    assert_same_pictures(*both_draw(folder, reference, (side, side), rng, clip_skip=1, guidance_rescale=0.5))


def test_we_open_what_the_reference_writes(tiny, tmp_path, rng):
    """Its own folder differs: no vocab.json, no prefix to the text model's keys, a configuration with every field."""
    reference = open_reference(tiny)
    reference.save_pretrained(tmp_path)
    assert_same_pictures(*both_draw(tmp_path, reference, (4, 4), rng))
    drawn = [pipelines.load(each).text_to_image("a star", steps=3) for each in (tiny, tmp_path)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("spare", [0, 5])
def test_learnt_tokens_draw_the_references_picture(tiny, tmp_path, rng, spare):
    """Textual inversion: one token of two vectors, one of a single, in a table that may have rows to spare."""
    reference = open_reference(tiny)
    reference.tokenizer.add_tokens(["<cat-toy>", "<cat-toy>_1", "<style>"])
    reference.text_encoder.resize_token_embeddings(len(reference.tokenizer) + spare, mean_resizing=False)
    with torch.no_grad():
        reference.text_encoder.get_input_embeddings().weight[-3 - spare :].normal_(generator=torch.manual_seed(2))
    reference.save_pretrained(tmp_path / "theirs")
    words = {"prompts": ("a <cat-toy> above a circle", "a my<cat-toy>!"), "negative_prompt": ("<STYLE>", "a <style>")}
    assert_same_pictures(*both_draw(tmp_path / "theirs", reference, (8, 12), rng, **words))
    ours = pipelines.load(tmp_path / "theirs")
    assert np.abs(ours.encode_prompts(["a <cat-toy>"]) - ours.encode_prompts(["a cat toy"])).max() > 0.1
    ours.save_pretrained(tmp_path / "ours")
    assert_same_pictures(*both_draw(tmp_path / "ours", open_reference(tmp_path / "ours"), (8, 12), rng, **words))
