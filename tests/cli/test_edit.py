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


def test_attention_is_carried_over(change, model, picture, tmp_path):
    asked = "--cross-replace-steps", 0.7, "--weight", "green=2", "--weight", "0=0.5", "--local-blend"
    assert change("--output", "out.npy", *asked) == (0, "out.npy\n", "")
    weights = {"green": 2.0, 0: 0.5}
    expected = load(model).edit(picture, RED, GREEN, 3, cross_replace_steps=0.7, weights=weights, blend=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_without_a_picture_both_are_drawn(run, model, tmp_path):
    asked = "--seed", 4, "--self-replace-steps", 0.5, "--size", "8x12", "--sheet", "s.png", "--output", "out.png"
    assert run("edit", "--from", RED, "--to", GREEN, "--model", "MODEL", "--steps", 3, *asked) == (0, "out.png\n", "")
    _, after = load(model).draw_edited(RED, GREEN, steps=3, seed=4, size=(8, 12), self_replace_steps=0.5)
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.rint(after[0] * 255))
        told = {"from": RED, "prompt": GREEN, "seed": "4", "self_replace_steps": "0.5", "guidance": "7.5"}
        assert image.text.items() >= told.items() and "image" not in image.text
    assert (tmp_path / "s.png").is_file()


@pytest.mark.parametrize(("arguments", "texts", "words"), [
    ([], {"source": " "}, "--from is empty: say what the picture shows"),
    ([], {"target": ""}, "--to is empty: say what the picture is to show"),
    (["--size=--"], {}, "--size=-- gives no value"),
    (["--size", 9], {}, "9 x 9 is not divisible by 2"),
    (["--output", "a.jpg"], {}, "expected a name that ends in .png or .npy"),
    (["--guidance", "inf"], {}, "guidance must be a finite number"),
    (["--weight", "green"], {}, "expected WORD=FACTOR such as red=1.5, got 'green'"),
    (["--weight", "=2"], {}, "expected WORD=FACTOR"),
    (["--weight", "purple=2"], {}, "'purple' stands 0 times among"),
    (["--weight", "green=inf"], {}, "the scale of 'green' must be a finite number"),
    (["--cross-replace-steps", 1.5], {}, "cross_replace_steps must be a share of the steps, from 0 to 1, got 1.5"),
    (["--local-blend"], {"target": RED}, "no word of the two prompts differs"),
    (["--seed", 3], {}, "--seed is for an edit without IMAGE"),
])
def test_a_mistake_is_one_line_and_writes_nothing(change, picture, tmp_path, arguments, texts, words):
    assert words in refused(change(*arguments, **texts))
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
