"""Inpainting and outpainting: what is outside the mask comes back bit for bit, what is inside is drawn."""

import numpy as np
import pytest
import tiny_pipeline

from minild.diffusion import SAMPLERS
from minild.errors import UserError
from minild.models import UNet2DConditionModel

RED, GREEN = tiny_pipeline.CAPTIONS
MASK = np.zeros((8, 8), bool)
MASK[3:, 1:6] = True  # not on the grid of f = 2


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def nine(rng):
    """A model made for it: of 2 + 1 + 2 channels, as Stable Diffusion's is of nine."""
    pipe = tiny_pipeline.make(record={"condition": "text+masked"})
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | {"in_channels": 5})
    for parameter in pipe.unet.parameters():
        deviation = 0.05 if parameter.data.ndim == 1 else parameter.data[..., 0].size ** -0.5
        parameter.data = parameter.data + rng.standard_normal(parameter.data.shape, np.float32) * np.float32(deviation)
    return pipe


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"ddim-inverse", "flow-euler"}))
def test_outside_the_mask_nothing_changes(pipe, pictures, sampler):
    for strength in (1.0, 0.5):
        drawn = pipe.inpaint(pictures, MASK, RED, strength, steps=6, sampler=sampler)
        assert drawn.shape == pictures.shape and drawn.dtype == np.float32
        np.testing.assert_array_equal(np.rint(drawn * 255).astype(np.uint8)[:, ~MASK], pictures[:, ~MASK])
        assert abs(drawn - pictures / 255)[:, MASK].max() > 0.05


@pytest.mark.parametrize("made_for_it", [False, True])
def test_what_is_drawn_knows_what_is_around_it_and_not_what_was_there(pipe, nine, pictures, made_for_it):
    pipe = nine if made_for_it else pipe
    other = pictures.copy()
    other[:, ~MASK] = 255 - other[:, ~MASK]
    drawn, there = (pipe.inpaint(x, MASK, RED, steps=5)[:, MASK] for x in (pictures, other))
    assert abs(drawn - there).max() > 1e-3
    hidden = np.ones((8, 8), bool)  # all of it: what was there cannot tell
    if made_for_it:
        np.testing.assert_array_equal(*(pipe.inpaint(x, hidden, RED, steps=5) for x in (pictures, other)))


def test_a_whole_mask_is_drawing_from_words(pipe, pictures):
    drawn = pipe.inpaint(pictures, np.ones((8, 8)), RED, steps=5)
    np.testing.assert_array_equal(drawn, pipe.text_to_image([RED] * 2, steps=5))


def test_a_model_made_for_it_encodes_the_whole_picture_only_where_it_begins_with_it(nine, pictures, monkeypatch):
    calls = []
    encode = type(nine.vae).mean_latent
    monkeypatch.setattr(type(nine.vae), "mean_latent", lambda *given: calls.append(1) or encode(*given))
    nine.inpaint(pictures[0], MASK, RED, steps=2)
    assert len(calls) == 1  # of the rest of the picture
    nine.inpaint(pictures[0], MASK, RED, 0.5, steps=2)
    assert len(calls) == 3


@pytest.mark.parametrize("made_for_it", [False, True])
def test_every_picture_has_its_own_mask(pipe, nine, pictures, made_for_it):
    pipe = nine if made_for_it else pipe
    masks = np.stack([MASK, MASK.T])
    drawn = pipe.inpaint(pictures, masks, [RED, GREEN], 0.8, steps=5, seed=3)
    for i, prompt in enumerate([RED, GREEN]):
        alone = pipe.inpaint(pictures[i], masks[i], prompt, 0.8, steps=5, seed=3 + i)
        np.testing.assert_array_equal(alone[0], drawn[i])
    several = pipe.inpaint(pictures[0], masks, RED, steps=5)  # one picture, two masks
    assert len(several) == 2 and abs(several[0] - several[1]).max() > 1e-3
    again = pipe.inpaint(pictures[0], MASK, RED, steps=5, seed=[0, 1])  # one picture and mask, two seeds
    np.testing.assert_array_equal(again[0], several[0])


def test_outpainting_keeps_the_picture_and_draws_the_margins(pipe, pictures):
    drawn = pipe.outpaint(pictures, (0, 4, 2, 0), RED, steps=5, sampler="euler")
    assert drawn.shape == (2, 10, 12, 3)
    np.testing.assert_array_equal(np.rint(drawn * 255).astype(np.uint8)[:, :8, :8], pictures)
    assert abs(drawn[0] - drawn[1])[:, 8:].max() > 1e-3


def test_what_cannot_be_used(pipe, pictures):
    for message, arguments, settings in (
        ("a mask is empty", (pictures, np.zeros((8, 8))), {}),
        ("a mask is empty", (pictures, np.stack([MASK, ~MASK & MASK])), {}),
        (r"masks: expected shape \(2, 8, 8\) like the pictures, got \(2, 8, 6\)", (pictures, MASK[:, :6]), {}),
        ("masks: expected shape", (pictures, np.stack([MASK] * 3)), {}),
        ("needs masks", (pictures, None), {}),
        ("strength must be above 0", (pictures, MASK, RED, 0), {}),
        ("2 images do not go with 3", (pictures, MASK, [RED] * 3), {}),
        ("2 prompts do not go with 3 seeds", (pictures, MASK, RED), {"seed": [1, 2, 3]}),
        ("ddim-inverse", (pictures, MASK), {"sampler": "ddim-inverse"}),
    ):
        with pytest.raises(UserError, match=message):
            pipe.inpaint(*arguments, **{"steps": 2, **settings})


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (2, 2), (0, -2, 0, 0), (0.5, 0, 0, 0)])
def test_margins_that_cannot_be(pipe, pictures, margins):
    with pytest.raises(UserError, match="margins: expected pixels at the top, right, bottom and left"):
        pipe.outpaint(pictures, margins, RED)


def test_a_model_of_classes_says_how_it_draws(pictures):
    pipe = tiny_pipeline.make(record={"condition": "class", "classes": ["a", "b"]})
    with pytest.raises(UserError, match="inpaint is not for this model: what leads it is class"):
        pipe.inpaint(pictures, MASK, RED)
