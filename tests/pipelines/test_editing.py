"""Inversion and editing: the way back to the noise, and from there with another caption."""

import numpy as np
import pytest
import tiny_pipeline

from minild.data.location import data_path
from minild.data.shapes import Scene, captions, render
from minild.errors import UserError
from minild.pipelines import load

RED, GREEN = tiny_pipeline.CAPTIONS
SCENE = Scene((("circle", "red"), ("square", "blue")), "above", "white")


@pytest.fixture(scope="module")
def shapes():
    return load(data_path("pretrained", "shapes"))


def test_ddim_from_the_inverted_noise_draws_the_picture_again(shapes):
    picture, caption = render(SCENE), captions(SCENE)[0]
    noise = shapes.invert(picture, caption, steps=25)
    again = shapes.text_to_image(caption, steps=25, guidance_scale=1, sampler="ddim", latents=noise)
    other = shapes.text_to_image(caption, steps=25, guidance_scale=1, sampler="ddim", latents=noise[:, ::-1])
    error = abs(again - picture / 255).mean()
    assert error < 0.02 < abs(other - picture / 255).mean()


def test_an_edit_changes_what_the_caption_changes(shapes):
    source, target = captions(SCENE)[0], captions(SCENE)[0].replace("a blue square", "a green star")
    picture = render(SCENE)
    drawn = shapes.edit(picture, source, target, steps=25)
    assert drawn.shape == (1, 32, 32, 3) and drawn.dtype == np.float32
    change = abs(drawn[0] - picture / 255).mean(axis=-1)
    assert change[16:].mean() > 0.05 and change[:15].mean() < 0.03  # the square, and not the circle above it
    unchanged = shapes.edit(picture, source, source, steps=25, guidance_scale=1)
    assert abs(unchanged - picture / 255).mean() < 0.02


def test_each_picture_has_its_captions(pipe, rng):
    pictures = rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    both = pipe.edit(pictures, [RED, GREEN], [GREEN, RED], steps=3)
    for i, texts in enumerate([(RED, GREEN), (GREEN, RED)]):
        np.testing.assert_array_equal(pipe.edit(pictures[i], *texts, steps=3)[0], both[i])


def test_what_cannot_be_used(pipe, rng):
    pictures = rng.random((2, 8, 8, 3), np.float32)
    for message, arguments in (
        ("3 prompts do not go with 2 latents", (pictures, [RED] * 3, GREEN)),
        ("3 prompts do not go with 2 latents", (pictures, RED, [GREEN] * 3)),
        ("images: 7 x 8 is not divisible by 2", (pictures[:, 1:], RED, GREEN)),
        ("steps: expected 1 to 1000", (pictures, RED, GREEN, 0)),
    ):
        with pytest.raises(UserError, match=message):
            pipe.edit(*arguments)
    classes = tiny_pipeline.make(record={"condition": "class", "classes": ["a"]})
    with pytest.raises(UserError, match="invert is not for this model"):
        classes.edit(pictures, RED, GREEN)
