"""minild interpolate: a strip or a moving picture between seeds."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.pipelines import load

RED, _ = tiny_pipeline.CAPTIONS


def test_the_strip_begins_and_ends_with_the_seeds_own_pictures(draw_between, model, tmp_path):
    assert draw_between("--seed", "3,8", "--frames", 4, "--output", "strip.png") == (0, "strip.png\n", "")
    pipe = load(model)
    with Image.open(tmp_path / "strip.png") as image:
        tiles = np.split(np.asarray(image), 4, axis=1)
        said = {"prompt": RED, "seed": "3, 8", "frames": "4", "steps": "2", "sampler": "ddim", "guidance": "7.5"}
        assert image.text.items() >= said.items()
    first, last = pipe.text_to_image(RED, steps=2, seed=[3, 8])
    np.testing.assert_allclose(tiles[0], first * 255, atol=0.51)
    np.testing.assert_allclose(tiles[-1], last * 255, atol=0.51)
    assert all((tile != tiles[0]).any() for tile in tiles[1:])


def test_a_gif_moves_for_ever(draw_between, tmp_path):
    assert draw_between("--seed", "1,2,1", "--frames", 3, "--output", "a.gif") == (0, "a.gif\n", "")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 5 and image.info["loop"] == 0 and image.size == (8, 8)


@pytest.fixture
def draw_between(run):
    return lambda *arguments: run("interpolate", RED, *arguments, "--model", "MODEL", "--steps", 2)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--seed", "4"], "1 seed: give two, or more"),
    (["--frames", 1], "--frames"),
    (["--sampler", "ddim-inverse"], "ddim-inverse begins with a picture and ends in noise: use another"),
    (["--frames", 9000], "18,000 pictures are too many"),
    (["--output", "a.jpg"], "expected a name that ends in .gif or .png"),
    (["--output", "nowhere/a.gif"], "cannot write nowhere/a.gif"),
])
def test_a_mistake_is_one_line_and_writes_nothing(draw_between, tmp_path, arguments, words):
    assert words in refused(draw_between(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prompt(run):
    assert "the prompt is empty" in refused(run("interpolate", "", "--model", "MODEL"))
