"""Inversion and editing: the way back to the noise, and from there with another caption."""

import numpy as np
import pytest
import tiny_pipeline

from minild.data.location import data_path
from minild.data.shapes import Scene, captions, render
from minild.errors import UserError
from minild.pipelines import editing, load

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
    with pytest.raises(UserError, match="edit is not for this model"):
        classes.edit(pictures, RED, GREEN, cross_replace_steps=0.5)
    with pytest.raises(UserError, match="draw_edited is not for this model"):
        classes.draw_edited(RED, GREEN)


def test_carried_attention_keeps_places_better(shapes):
    source, picture = captions(SCENE)[0], render(SCENE)
    target = source.replace("a blue square", "a green star")
    free, carried = (shapes.edit(picture, source, target, 8, 3, cross_replace_steps=share) for share in (None, 0.8))
    circle, below = ([abs(drawn[0] - picture / 255)[rows].mean() for drawn in (free, carried)]
                     for rows in (slice(15), slice(16, 32)))
    assert min(below) > 0.05 and circle[0] > circle[1]


@pytest.mark.parametrize("carry", [{"cross_replace_steps": 0.5}, {"weights": {"a": 2}}, {"blend": True}])
def test_carried_over_each_picture_has_its_captions(pipe, rng, carry):
    pictures = rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    if "weights" in carry:  # "a" stands several times: by its number
        carry = {"weights": {0: 2.0}}
    both = pipe.edit(pictures, [RED, GREEN], [GREEN, RED], 3, **carry)
    for i, texts in enumerate([(RED, GREEN), (GREEN, RED)]):
        alone = pipe.edit(pictures[i], *texts, 3, **carry)
        np.testing.assert_array_equal(alone[0], both[i])
        assert abs(alone - pipe.edit(pictures[i], *texts, 3)).max() > 1e-3


def test_the_source_is_the_picture_again_however_strong_the_guidance(pipe, rng, monkeypatch):
    drawn, picture, draw = [], rng.random((8, 8, 3), np.float32), editing.draw_pictures
    monkeypatch.setattr(editing, "draw_pictures", lambda *asked, **more: drawn.append(draw(*asked, **more)) or drawn[0])
    pipe.edit(picture, RED, GREEN, 4, 3.0, cross_replace_steps=0.5)
    again = pipe.text_to_image(RED, steps=4, guidance_scale=1, sampler="ddim", latents=pipe.invert(picture, RED, 4))
    np.testing.assert_allclose(drawn[0][:1], again, atol=1e-4)
    assert abs(drawn[0][1] - drawn[0][0]).max() > 1e-2


def test_drawn_from_noise(pipe):
    settings = {"steps": 3, "seed": 5, "guidance_scale": 3, "sampler": "euler-a", "size": (8, 12)}
    before, after = pipe.draw_edited([RED, GREEN], [GREEN, RED], **settings)
    np.testing.assert_allclose(before, pipe.text_to_image([RED, GREEN], **settings), atol=1e-4)
    free = pipe.text_to_image([GREEN, RED], **settings)
    assert before.shape == after.shape == (2, 8, 12, 3) and abs(after - free).max() > 1e-3
    none = pipe.draw_edited([RED, GREEN], [GREEN, RED], **settings, cross_replace_steps=0, self_replace_steps=0)
    np.testing.assert_allclose(none[1], free, atol=1e-4)
    one, other = pipe.draw_edited(RED, GREEN, **settings, blend=True)
    assert one.shape == (1, 8, 12, 3) and abs(one - other).max() > 1e-3


@pytest.mark.parametrize(("message", "asked"), [
    ("2 sources do not go with 3 targets", {"source": [RED] * 2, "target": [RED] * 3}),
    ("no prompt: give at least one", {"source": [], "target": RED}),
    ("'purple' stands 0 times", {"source": RED, "target": GREEN, "weights": {"purple": 2}}),
    ("cross_replace_steps must be a share", {"source": RED, "target": GREEN, "cross_replace_steps": 2}),
    ("local blend: no word of the two prompts differs", {"source": RED, "target": RED, "blend": True}),
])
def test_what_cannot_be_drawn(pipe, rng, message, asked):
    with pytest.raises(UserError, match=message):
        pipe.draw_edited(**asked, steps=1)
    if isinstance(asked["source"], str):
        with pytest.raises(UserError, match=message):
            pipe.edit(rng.random((8, 8, 3), np.float32), steps=1, **asked)
