"""minild edit: what it draws, writes and prints."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.pipelines import load

RED, GREEN = tiny_pipeline.CAPTIONS


@pytest.fixture
def picture(tmp_path, rng):
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return pixels


@pytest.fixture
def change(run):
    def call(*arguments, source=RED, target=GREEN):
        texts = "--from", source, "--to", target
        return run("edit", "in.png", *texts, *arguments, "--model", "MODEL", "--steps", 3)

    return call


def test_edit_writes_the_picture(change, model, picture, tmp_path):
    assert change("--output", "out.png", "--guidance", 3, "--sheet", "s.png") == (0, "out.png\n", "")
    expected = load(model).edit(picture, RED, GREEN, 3, 3.0)[0]
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.rint(expected * 255))
        assert image.text.items() >= {"from": RED, "prompt": GREEN, "image": "in.png", "guidance": "3.0"}.items()
    assert (tmp_path / "s.png").is_file()


@pytest.mark.parametrize(("arguments", "texts", "words"), [
    ([], {"source": " "}, "--from is empty: say what the picture shows"),
    ([], {"target": ""}, "--to is empty: say what the picture is to show"),
    (["--size", 9], {}, "9 x 9 is not divisible by 2"),
    (["--output", "a.jpg"], {}, "expected a name that ends in .png or .npy"),
    (["--guidance", "inf"], {}, "guidance must be a finite number"),
])
def test_a_mistake_is_one_line_and_writes_nothing(change, picture, tmp_path, arguments, texts, words):
    assert words in refused(change(*arguments, **texts))
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
