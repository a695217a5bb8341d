"""Image to image: the picture decides as much as the strength leaves it, and every mistake is told."""

import numpy as np
import pytest
import tiny_pipeline

from minild.data.location import data_path
from minild.data.shapes import Scene, captions, render
from minild.diffusion import SAMPLERS, Start
from minild.errors import UserError
from minild.pipelines import load
from minild.pipelines.drawing import draw_pictures
from minild.pipelines.image_to_image import skipped
from minild.pipelines.request import requested

RED, GREEN = tiny_pipeline.CAPTIONS


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)


def test_it_is_the_late_part_of_a_drawing_that_begins_with_the_pictures_latents(pipe, pictures, rng):
    noise = rng.standard_normal((3, 4, 6, 2), np.float32)
    z = pipe.vae.mean_latent((2 * (pictures / np.float32(255)) - 1).astype(np.float32))
    start = Start(pipe.vae.config["scaling_factor"] * z, 3)
    request = requested(pipe, RED, steps=10, sampler="ddim", latents=noise, start=start)
    drawn = pipe.image_to_image(pictures, RED, 0.75, steps=10, sampler="ddim", latents=noise)
    np.testing.assert_allclose(drawn, draw_pictures(pipe, request), atol=1e-5)


@pytest.mark.parametrize("strength, taken", [(0.1, 1), (0.19, 1), (0.55, 5), (0.99, 9), (1, 10), (1.0, 10)])
def test_the_strength_is_the_share_of_steps_taken(strength, taken):
    assert skipped(strength, 10) == 10 - taken


def test_the_less_strength_the_nearer_to_the_picture():
    shapes = load(data_path("pretrained", "shapes"))
    scene = Scene((("circle", "red"), ("square", "blue")), "above", "white")
    picture = render(scene)
    drawn = [shapes.image_to_image(picture, captions(scene)[0], strength, steps=20) for strength in (0.05, 0.3, 1.0)]
    near, middle, far = (abs(each - picture / 255).mean() for each in drawn)
    assert near < 0.01 < middle < far


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"ddim-inverse", "flow-euler"}))
def test_every_sampler_serves_it(pipe, pictures, sampler):
    settings = {"steps": 6, "sampler": sampler, "seed": 4}
    drawn = pipe.image_to_image(pictures, [RED, GREEN, RED], 0.5, **settings)
    assert drawn.shape == pictures.shape and drawn.dtype == np.float32
    alone = pipe.image_to_image(pictures[1], GREEN, 0.5, **settings | {"seed": 5})
    np.testing.assert_array_equal(alone[0], drawn[1])
    other = pipe.image_to_image(pictures[0], GREEN, 0.5, **settings | {"seed": 5})
    assert abs(other - alone).max() > 1e-3  # the picture tells


def test_one_picture_serves_several_seeds_and_prompts(pipe, pictures):
    drawn = pipe.image_to_image(pictures[0], RED, steps=4, seed=[3, 8])
    assert len(drawn) == 2 and abs(drawn[0] - drawn[1]).max() > 1e-3
    np.testing.assert_array_equal(drawn[1:], pipe.image_to_image(pictures[:1], RED, steps=4, seed=8))
    assert len(pipe.image_to_image(pictures[0], [RED, GREEN], steps=4)) == 2


def test_latents_are_its_noise(pipe, pictures, rng):
    noise = rng.standard_normal((3, 4, 6, 2), np.float32)
    drawn = pipe.image_to_image(pictures, RED, steps=4, latents=noise)
    assert abs(drawn - pipe.image_to_image(pictures, RED, steps=4, latents=-noise)).max() > 1e-3


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan"), "much", None])
def test_strengths_that_cannot_be(pipe, pictures, strength):
    with pytest.raises(UserError, match="strength must be above 0 and at most 1"):
        pipe.image_to_image(pictures, RED, strength)


def test_what_else_is_refused(pipe, pictures, rng):
    for message, arguments, settings in (
        ("strength 0.05 of 10 steps is less than one step", (pictures, RED, 0.05), {"steps": 10}),
        ("images: 7 x 12 is not divisible by 2", (pictures[:, 1:], RED), {}),
        ("images: expected pictures of shape", (pictures[..., :2], RED), {}),
        ("3 images do not go with 2 seeds", (pictures, RED), {"seed": [1, 2]}),
        ("3 images do not go with 2 prompts", (pictures, [RED, GREEN]), {}),
        ("ddim-inverse begins with a picture", (pictures, RED), {"sampler": "ddim-inverse"}),
        (r"latents: \(4, 4\) positions, where the images have \(4, 6\)", (pictures, RED),
         {"latents": rng.standard_normal((3, 4, 4, 2))}),
    ):
        with pytest.raises(UserError, match=message):
            pipe.image_to_image(*arguments, **{"steps": 4, **settings})


def test_a_model_of_classes_says_how_it_draws(pictures):
    pipe = tiny_pipeline.make(record={"condition": "class", "classes": ["a", "b"]})
    with pytest.raises(UserError, match="image_to_image is not for this model: what leads it is class"):
        pipe.image_to_image(pictures, RED)
