"""Upscaling: noise augmentation, tiles, folders, and mistakes that are told in one line."""

import json

import numpy as np
import pytest
import tiny_pipeline
from tiny_pipeline import make_upscaler

from minild.errors import UserError
from minild.pipelines import load, upscaling
from minild.pipelines.info import describe
from minild.pipelines.low_resolution import Augmentation, augmented, picture_noise, usual_augmentation
from minild.pipelines.request import requested


@pytest.fixture(scope="module")
def upscaler():
    return make_upscaler()


def test_a_picture_becomes_f_times_as_large_and_is_the_same_alone(upscaler, rng):
    pictures = rng.random((2, 3, 4, 3), np.float32)
    settings = {"steps": 3, "guidance_scale": 3.0}
    both = upscaler.upscale(pictures, "a red circle", 40, seed=5, **settings)
    assert both.shape == (2, 6, 8, 3) and both.dtype == np.float32 and both.min() >= 0 and both.max() <= 1
    np.testing.assert_array_equal(upscaler.upscale(pictures[1], "a red circle", 40, seed=6, **settings)[0], both[1])
    drawn = upscaler.condition_to_image(pictures, None, "a red circle", seed=5, noise_level=40, **settings)
    np.testing.assert_allclose(drawn, both, atol=1e-6)
    seeds = upscaler.upscale(pictures[0], "a red circle", 40, seed=[5, 9], **settings)
    np.testing.assert_array_equal(seeds[0], both[0])
    other = upscaler.upscale(pictures[:1], "a star", 40, seed=5, **settings)
    assert abs(seeds[1] - seeds[0]).max() > 1e-3 and abs(other - both[:1]).max() > 1e-3


def test_the_level_is_told_and_is_the_noise(upscaler, rng):
    pictures = 2 * rng.random((2, 4, 4, 3), np.float32) - 1
    from minild.models import Condition
    from minild.pipelines.conditions import nothing_like

    given = Condition(channels=pictures)
    request = requested(upscaler, "a star", seed=[3, 8], given=given, nothing=nothing_like(upscaler, given))
    led = augmented(upscaler, request, 300)
    alpha_bar = upscaler.augmentation.schedule.alphas_cumprod[300]
    expected = alpha_bar**0.5 * pictures + (1 - alpha_bar) ** 0.5 * picture_noise([3, 8], (4, 4, 3))
    np.testing.assert_allclose(led.given.channels, expected, atol=1e-6)
    assert led.given.class_labels.tolist() == led.nothing.class_labels.tolist() == [300, 300]
    np.testing.assert_array_equal(led.nothing.channels, led.given.channels)  # words alone are guided by
    assert augmented(upscaler, request).given.class_labels.tolist() == [20, 20]
    assert augmented(make_upscaler(highest=7, labels=8), request).given.class_labels.tolist() == [7, 7]
    of_latents = np.random.default_rng(3).standard_normal((1, 4, 4, 3), "f")
    assert abs(picture_noise([3], (4, 4, 3)) - of_latents).max() > 0.1


def test_guidance_without_words_leads_away_from_no_picture(rng):
    pipe, pictures = make_upscaler(words=False), rng.random((1, 4, 4, 3), np.float32)
    weak, strong = (pipe.upscale(pictures, steps=2, guidance_scale=scale) for scale in (1, 3))
    assert abs(weak - strong).max() > 1e-3


def test_a_model_that_knows_no_levels_is_told_none(rng):
    pipe, pictures = make_upscaler(words=False, labels=None), rng.random((1, 4, 4, 3), np.float32)
    np.testing.assert_allclose(pipe.upscale(pictures, steps=2), pipe.condition_to_image(pictures, steps=2), atol=1e-6)
    with pytest.raises(UserError, match="the model is told no noise level: leave it out"):
        pipe.upscale(pictures, noise_level=20)


def test_a_large_picture_is_drawn_in_tiles(upscaler, rng, monkeypatch):
    pictures, seen = rng.random((2, 6, 9, 3), np.float32), []
    draw = upscaling.draw_pictures
    monkeypatch.setattr(upscaling, "draw_pictures", lambda pipe, request, *rest: seen.append(request) or draw(
        pipe, request, *rest))
    drawn = upscaler.upscale(pictures, ["a star", "a circle"], steps=2, seed=4)
    (request,) = seen
    assert drawn.shape == (2, 12, 18, 3) and request.shape == (4, 4, 2)
    assert len(request.prompts) == 2 * 2 * 3 and request.prompts[:2] == ["a star", "a circle"]
    # What two tiles share begins as the same noise and the same picture: tiles 0 and 1 are columns 0-3 and 2-5 or 3-6.
    first, second = request.latents[0], request.latents[2]
    shift = next(shift for shift in (1, 2, 3) if np.array_equal(first[:, shift:], second[:, : 4 - shift]))
    one, two = request.given.channels[0], request.given.channels[2]
    np.testing.assert_array_equal(one[:, shift:], two[:, : 4 - shift])
    corner = upscaler.upscale(pictures[:1, :4, :4], "a star", steps=2, seed=4)
    assert corner.shape == (1, 8, 8, 3)


def test_a_folder_of_the_references_upscaler(tmp_path, upscaler, rng):
    upscaler.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionUpscalePipeline" and index["max_noise_level"] == 350
    assert index["low_res_scheduler"] == ["diffusers", "DDPMScheduler"]
    (tmp_path / "minild.json").unlink()  # its class alone says what it is
    again, pictures = load(tmp_path), rng.random((1, 4, 3, 3), np.float32)
    assert again.kinds == ("text", "low resolution")
    np.testing.assert_array_equal(
        again.upscale(pictures, "a star", 9, steps=2), upscaler.upscale(pictures, "a star", 9, steps=2)
    )
    assert "noise levels  0 to 350 of a low-resolution picture" in describe(tmp_path)


def broken(folder, change, upscaler):
    upscaler.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    change(index, folder)
    (folder / "model_index.json").write_text(json.dumps(index))


def no_scheduler(index, folder):
    del index["low_res_scheduler"]


def no_folder(index, folder):
    (folder / "low_res_scheduler" / "scheduler_config.json").unlink()
    (folder / "low_res_scheduler").rmdir()


def too_high(index, folder):
    index["max_noise_level"] = 351


def no_number(index, folder):
    index["max_noise_level"] = "high"


def a_flow(index, folder):
    file = folder / "low_res_scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))


@pytest.mark.parametrize(("change", "words"), [
    (no_scheduler, "names no low_res_scheduler"),
    (no_folder, "has no folder low_res_scheduler: copy the whole pipeline"),
    (too_high, "unet num_class_embeds is 351, max_noise_level 351"),
    (no_number, "max_noise_level: expected a whole number from 0 to 999, got 'high'"),
    (a_flow, "adds no noise"),
])
def test_a_broken_folder_is_one_line(tmp_path, upscaler, change, words):
    broken(tmp_path, change, upscaler)
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


PICTURE = np.zeros((4, 4, 3), np.float32)


@pytest.mark.parametrize(("asked", "words"), [
    ({"images": PICTURE, "noise_level": 351}, "noise level must be a whole number from 0 to 350, got 351"),
    ({"images": PICTURE, "noise_level": -1}, "noise level must be"),
    ({"images": PICTURE, "noise_level": 2.5}, "noise level must be"),
    ({"images": PICTURE[0]}, "expected pictures of shape"),
    ({"images": np.stack([PICTURE] * 2), "prompts": ["a"] * 3}, "3 prompts do not go with 2"),
    ({"images": PICTURE, "seed": []}, "no seed: give one"),
])
def test_a_mistake_is_one_line(upscaler, asked, words):
    with pytest.raises(UserError, match=words):
        upscaler.upscale(**asked)


def test_what_does_not_upscale_and_what_takes_no_words(pipe):
    with pytest.raises(UserError, match="upscale is not for this model: what leads it is text"):
        pipe.upscale(PICTURE)
    with pytest.raises(UserError, match="so use upscale"):
        make_upscaler().text_to_image("a star")
    with pytest.raises(UserError, match="the model takes no prompt: what leads it is low resolution"):
        make_upscaler(words=False).upscale(PICTURE, "a star")
    with pytest.raises(UserError, match="the model is told no noise level"):
        masked = tiny_pipeline.make(record={"condition": "text+masked"})
        masked.condition_to_image(np.zeros((8, 8, 3), "f"), np.ones((8, 8), bool), noise_level=3)


def test_an_augmentation_adds_what_the_schedule_says(rng):
    schedule = usual_augmentation().schedule
    pictures, noise = rng.random((2, 2, 3, 2, 3))
    noisy = Augmentation(schedule, 350).add(pictures, noise, np.array([0, 350]))
    assert noisy.dtype == np.float32
    assert abs(noisy[0] - pictures[0]).max() < 0.02 < 0.1 < abs(noisy[1] - pictures[1]).max()
