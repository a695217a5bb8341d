"""What is drawn together: one picture at a time, so that each is the same anywhere, or many where that is asked for."""

import numpy as np
import pytest
import tiny_pipeline

from minild.pipelines import planning
from minild.pipelines.planning import in_batches, pictures_at_once

RED, GREEN = tiny_pipeline.CAPTIONS


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(planning, "core_count", lambda: 2)


def test_how_many_pictures_are_one_array():
    assert pictures_at_once("cpu", 8, 8) == pictures_at_once("cpu", 8, 8, 512) == 1
    assert pictures_at_once("cuda", 64, 64) == pictures_at_once("cuda", 64, 64, 3) == 4
    with in_batches():
        assert pictures_at_once("cpu", 8, 8) == pictures_at_once("cpu", 8, 8, 512) == 32
        # as many batches as cores, or a multiple of that, and no small one at the end
        counts = {1: 1, 2: 1, 3: 2, 60: 30, 64: 32, 65: 17, 130: 22}
        assert {count: pictures_at_once("cpu", 8, 8, count) for count in counts} == counts
        assert pictures_at_once("cpu", 64, 64, 9) == 1
        assert pictures_at_once("cuda", 64, 64) == 4
    assert pictures_at_once("cpu", 8, 8, 512) == 1


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_in_batches_each_picture_has_the_noise_of_its_seed(pipe, sampler, monkeypatch):
    """The U-Net sees three pictures, each guided, at once; the pictures differ from each alone by rounding."""
    prompts = [RED, GREEN, RED, RED, GREEN, GREEN]
    alone = pipe.text_to_image(prompts, steps=3, seed=5, sampler=sampler)
    seen, forward = [], pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda x, *rest: (seen.append(len(x)), forward(x, *rest))[1])
    with in_batches():
        together = pipe.text_to_image(prompts, steps=3, seed=5, sampler=sampler)
        again = pipe.text_to_image(prompts, steps=3, seed=5, sampler=sampler)
    assert seen == [6] * 12
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_array_equal(together, again)
    assert abs(together[0] - together[2]).max() > 0.01
