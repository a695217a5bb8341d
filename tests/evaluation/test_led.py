"""Evaluations of pipelines that something else than words alone leads: what is asked of them, and what is measured."""

from types import SimpleNamespace

import numpy as np
import pytest

from minild.data.emoji import Emoji
from minild.data.pictures import gather
from minild.data.shapes import Shapes
from minild.diffusion import NoiseSchedule
from minild.errors import UserError
from minild.evaluation import evaluate, format_report, psnr
from minild.pipelines.conditions import reduced

ALWAYS = {"rebuilt", "psnr", "ssim", "lpips", "frechet", "drawn", "intervals"}
ALWAYS |= {"sampler", "steps", "guidance_scale", "seed"}
SETS = {"frechet_drawn", "precision", "recall"}
JUDGED = {"all", "background", "clip_score", "clip_score_real"}


class Led:
    """A pipeline led by `kinds`: it draws draw(images or labels, prompts), and notes what it was asked."""

    guidance_scale, schedule = 2.0, NoiseSchedule()

    def __init__(self, kinds, draw):
        self.kinds, self.draw, self.asked = kinds, draw, []
        self.vae = SimpleNamespace(
            mean_latent=lambda x: x, decode=lambda z: z, dtype=np.float32, device="cpu", downsampling=4
        )

    def class_to_image(self, labels, size, **settings):
        assert size == (32, 32)
        return self._drawn({"labels": labels, **settings})

    def condition_to_image(self, images, **settings):
        return self._drawn({"images": images, **settings})

    def _drawn(self, asked):
        self.asked.append(asked)
        return self.draw(asked).astype(np.float32) / 255


def shapes(kinds, draw, count=8):
    pipe = Led(kinds, draw)
    figures = evaluate(pipe, Shapes("train"), Shapes("test"), count, seed=3, steps=7, progress=False)
    [asked] = pipe.asked
    assert figures["drawn"] == count and asked["steps"] == 7 and asked["seed"] == 3 and asked["sampler"] == "dpmpp-2m"
    assert asked["guidance_scale"] == 2
    format_report(figures)
    return figures, asked


def test_classes_are_those_of_the_test_pictures():
    test = Shapes("test")
    real, _ = gather(test, 8)
    figures, asked = shapes(("class",), lambda asked: real)
    assert asked["labels"] == [test.class_name(i) for i in range(0, len(test), len(test) // 8)]
    assert "prompts" not in asked and figures.keys() == ALWAYS | SETS
    assert figures["frechet_drawn"] == pytest.approx(0, abs=1e-6) and figures["precision"] == 1


def test_what_stands_at_places_is_compared_place_by_place():
    real, _ = gather(Shapes("test"), 8)
    figures, asked = shapes(("low resolution",), lambda asked: real // 2)
    np.testing.assert_array_equal(asked["images"], reduced(real, 4))
    assert figures.keys() == ALWAYS | SETS | {"psnr_drawn", "lpips_drawn"}
    assert figures["psnr_drawn"] == pytest.approx(psnr(real // 2, real).mean(), rel=1e-5)
    assert figures["lpips_drawn"] > 0.1
    figures, asked = shapes(("semantic map",), lambda asked: real)
    np.testing.assert_array_equal(asked["images"][1], Shapes("test").semantic_map(len(Shapes("test")) // 8))
    assert figures["lpips_drawn"] == pytest.approx(0, abs=1e-6)


def test_an_image_leads_to_its_like_and_not_to_itself():
    real, _ = gather(Shapes("test"), 8)
    figures, asked = shapes(("image",), lambda asked: real)
    np.testing.assert_array_equal(asked["images"], real)
    assert figures.keys() == ALWAYS | SETS


def test_words_beside_a_masked_picture_are_judged_and_the_masks_are_the_seeds():
    test = Shapes("test")
    real = np.stack([test[i][0] for i in range(8)])
    figures, asked = shapes(("text", "masked"), lambda asked: asked["images"])
    np.testing.assert_array_equal(asked["images"], real)
    assert asked["prompts"] == [test.caption(i) for i in range(8)] and asked["masks"].shape == (8, 32, 32)
    assert figures.keys() > ALWAYS | SETS | JUDGED | {"psnr_drawn", "lpips_drawn"}
    assert figures["all"] == 1 and figures["psnr_drawn"] > 60
    again = shapes(("text", "masked"), lambda asked: asked["images"])[1]
    np.testing.assert_array_equal(again["masks"], asked["masks"])


def test_words_beside_a_picture_of_a_set_without_judge_are_looked_for_among_the_train_pictures():
    train, test = Emoji("train"), Emoji("test")
    real = {}

    def draw(asked):
        pictures = [real[caption] for caption in asked["prompts"]]
        np.testing.assert_allclose(asked["images"], reduced(np.stack(pictures), 4))
        return np.stack(pictures)

    real |= {train.captions(i)[0]: train[i][0] for i in range(len(train))}
    figures = evaluate(Led(("text", "low resolution"), draw), train, test, 6, progress=False)
    assert figures["top1"] == 1 and figures["psnr_drawn"] > 60


def test_a_set_that_cannot_say_what_is_asked_is_refused():
    with pytest.raises(UserError, match="emoji has no semantic maps"):
        evaluate(Led(("semantic map",), lambda asked: asked), Emoji("train"), Emoji("test"), 2, progress=False)
