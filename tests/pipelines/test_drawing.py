"""minild.pipelines.drawing: the generator that every way to draw runs; an inpainting shows what steps mix in."""

import math

import numpy as np
import pytest
import tiny_pipeline

from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.errors import UserError
from minild.pipelines.drawing import draw_latents, draw_pictures, encode
from minild.pipelines.request import requested
from minild.random import image_generators, standard_normal

RED, GREEN = tiny_pipeline.CAPTIONS
MASK = np.zeros((4, 4, 1))
MASK[1:, 2:] = 1  # 1 is what is drawn anew


def around(originals):
    """The `mixing` of an inpainting of these latents, (N, h, w, c)."""

    def mixing(rows, noise):
        def mix(z, alpha_bar):
            there = math.sqrt(alpha_bar) * originals[rows] + math.sqrt(1 - alpha_bar) * noise
            return (MASK * z + (1 - MASK) * there).astype(z.dtype)

        return mix

    return mixing


def latents(pipe, mixing=None, **asked):
    """The latents after every step of one picture."""
    request = requested(pipe, RED, **asked)
    generators = image_generators(request.seeds[0], 1)
    noise = standard_normal(generators, (4, 4, 2))
    mix = mixing and mixing(slice(0, 1), noise)
    return list(draw_latents(pipe, request, encode(pipe, request), noise, generators, mix))


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ddim-inverse"}))
def test_inpainting_keeps_the_picture_around_the_mask(pipe, rng, name):
    original = rng.standard_normal((1, 4, 4, 2), dtype="f")
    outside, inside = np.broadcast_to(MASK == 0, original.shape), np.broadcast_to(MASK == 1, original.shape)
    *before, z = latents(pipe, around(original), sampler=name, steps=6, seed=3)
    np.testing.assert_array_equal(z[outside], original[outside])
    assert len(before) == 5 and all(abs(each - original)[outside].max() > 0.01 for each in before)  # noised, till then
    # What is drawn anew has seen what is around it.
    alone = latents(pipe, sampler=name, steps=6, seed=3)[-1]
    other = latents(pipe, around(-original), sampler=name, steps=6, seed=3)[-1]
    assert abs(z - alone)[inside].max() > 1e-3 and abs(z - other)[inside].max() > 1e-3


def test_the_sample_passes_once_more_as_latents_without_noise(pipe):
    told = []

    def mix(z, alpha_bar):
        told.append(alpha_bar)
        return z + 1

    latents(pipe, lambda rows, noise: mix, steps=4)
    assert told == sorted(told) and len(told) == 5
    assert told[-2:] == [pipe.schedule.alphas_cumprod[0], 1]


def test_ddim_inverse_is_refused(pipe, rng):
    with pytest.raises(UserError, match="sampler ddim-inverse ends in noise: there is nothing to mix in"):
        latents(pipe, around(rng.standard_normal((1, 4, 4, 2))), sampler="ddim-inverse", steps=3)


@pytest.mark.parametrize("name", ["euler", "ddpm"])
def test_every_picture_mixes_in_its_own(pipe, rng, name):
    originals = rng.standard_normal((3, 4, 4, 2), dtype="f")
    asked = {"steps": 4, "sampler": name, "negative_prompt": GREEN, "guidance_scale": 3}
    pictures = draw_pictures(pipe, requested(pipe, [RED, GREEN, RED], seed=5, **asked), mixing=around(originals))
    assert pictures.shape == (3, 8, 8, 3)
    for i, prompt in enumerate([RED, GREEN, RED]):
        alone = draw_pictures(pipe, requested(pipe, prompt, seed=5 + i, **asked), mixing=around(originals[i : i + 1]))
        np.testing.assert_array_equal(alone[0], pictures[i])


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_latents_are_the_picture_of_text_to_image(pipe, name):
    trace = latents(pipe, sampler=name, steps=5, seed=9)
    assert len(trace) == 5
    expected = pipe.text_to_image(RED, steps=5, sampler=name, seed=9)
    np.testing.assert_array_equal(pipe.decode(trace[-1]), expected)


def test_the_models_own_guidance_is_the_default(pipe):
    assert requested(pipe, RED).guidance_scale == pipe.guidance_scale == 7.5
    own = tiny_pipeline.make(record={"guidance_scale": 2.0})
    drawn, expected = own.text_to_image(RED, steps=2), own.text_to_image(RED, steps=2, guidance_scale=2)
    np.testing.assert_array_equal(drawn, expected)
    assert abs(drawn - own.text_to_image(RED, steps=2, guidance_scale=7.5)).max() > 1e-3
    assert requested(own, RED, guidance_scale=0).guidance_scale == 1  # less is no guidance, and not the model's own


def test_a_prompt_has_to_be_a_text(pipe):
    for wrong, message in (("a \udcff", "a prompt is not valid text: 'a .udcff'"), (7, "must be a text, got 7")):
        for asked in ({"prompts": [RED, wrong]}, {"prompts": RED, "negative_prompt": [wrong]}):
            with pytest.raises(UserError, match=message):
                requested(pipe, **asked)
