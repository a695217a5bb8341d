"""minild txt2img: what it draws, writes and prints."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.pipelines import load

RED, GREEN = tiny_pipeline.CAPTIONS


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_txt2img_writes_a_png_named_after_the_prompt(draw, tmp_path, model):
    assert draw(RED) == (0, "a-red-circle-above-a-blue-square-on-a-wh.png\n", "")
    [file] = tmp_path.iterdir()
    expected = load(model).text_to_image(RED, steps=2)[0]
    assert abs(pixels(file) / 255 - expected).max() <= 0.5 / 255 + 1e-6  # rounded, not cut
    with Image.open(file) as image:
        assert image.text == {
            "Software": "minild",
            "prompt": RED,
            "seed": "0",
            "negative_prompt": "",
            "model": str(model),
            "steps": "2",
            "guidance": "7.5",
            "sampler": "ddim",
            "dtype": "float32",
        }


def test_a_seed_gives_one_file_byte_for_byte(draw, tmp_path):
    for name in ("first.png", "again.png"):
        draw(RED, "--output", name, "--seed", 7, "--sampler", "ddpm")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_several_pictures_are_numbered_and_each_is_its_seed_alone(draw, tmp_path):
    status, out, _ = draw(RED, GREEN, "--count", 2, "--output", "s.png", "--seed", 3)
    assert (status, out) == (0, "s-0.png\ns-1.png\ns-2.png\ns-3.png\n")
    for i, prompt in enumerate([RED, RED, GREEN, GREEN]):
        draw(prompt, "--output", "alone.png", "--seed", 3 + i)
        assert (tmp_path / "alone.png").read_bytes() == (tmp_path / f"s-{i}.png").read_bytes()


def test_numbers_are_padded_so_that_names_sort(draw):
    _, out, _ = draw("x", *["a"] * 10, "--steps", 1)
    assert out.split() == [f"x-{i:02}.png" for i in range(11)]


def test_npy_holds_all_pictures_exactly(draw, tmp_path, model):
    assert draw(RED, GREEN, "--output", "p.npy")[:2] == (0, "p.npy\n")
    pictures = np.load(tmp_path / "p.npy")
    assert pictures.dtype == np.float32
    np.testing.assert_array_equal(pictures, load(model).text_to_image([RED, GREEN], steps=2))


def test_options_reach_the_pipeline(draw, tmp_path, model, rng):
    noise = rng.standard_normal((2, 6, 4, 2)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    draw(RED, "--latents", "noise.npy", "--guidance", 2, "--negative-prompt", GREEN, "--output", "p.npy")
    expected = load(model).text_to_image(RED, GREEN, steps=2, guidance_scale=2, latents=noise)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    draw(RED, "--latents", "noise.npy", "--output", "p.png")
    with Image.open(tmp_path / "p-1.png") as image:
        assert image.size == (8, 12)
        assert image.text["latents"] == "noise.npy"
    draw(RED, "--size", "10x14", "--output", "wide.png")
    assert pixels(tmp_path / "wide.png").shape == (10, 14, 3)
    draw(RED, "--dtype", "float16", "--output", "half.npy")
    assert np.load(tmp_path / "half.npy").dtype == np.float32


@pytest.mark.parametrize("guidance", ["0", "1", "-2"])
def test_no_guidance_is_the_prompt_alone_and_what_it_leaves_unused_is_named(draw, tmp_path, model, guidance):
    steering = ["--negative-prompt", GREEN, "--guidance-rescale", 0.5]
    assert draw(RED, "--guidance", guidance, "--output", "plain.npy")[2] == ""
    _, _, said = draw(RED, "--guidance", guidance, *steering, "--output", "steered.npy")
    unused = "--negative-prompt and --guidance-rescale, for a guidance of"
    assert said == f"minild: not used: {unused} {guidance} is none\n"
    expected = load(model).text_to_image(RED, steps=2, guidance_scale=1)
    for name in ("plain", "steered"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected)
    assert draw(RED, "--guidance", 1.5, *steering, "--output", "guided.npy")[2] == ""


def test_clip_skip_rescale_and_a_seed_for_each_picture(draw, tmp_path, model):
    options = ["--clip-skip", 1, "--guidance-rescale", 0.7, "--seed", "7,12,3"]
    assert draw(RED, GREEN, RED, *options, "--output", "p.npy")[0] == 0
    expected = load(model).text_to_image([RED, GREEN, RED], steps=2, seed=[7, 12, 3], clip_skip=1, guidance_rescale=0.7)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    assert draw(RED, "--count", 3, *options, "--output", "P.PNG")[1] == "P-0.PNG\nP-1.PNG\nP-2.PNG\n"
    for i, seed in enumerate(("7", "12", "3")):
        with Image.open(tmp_path / f"P-{i}.PNG") as image:
            text = image.text
        assert (text["seed"], text["clip_skip"], text["guidance_rescale"]) == (seed, "1", "0.7")
    assert np.array_equal(pixels(tmp_path / "P-2.PNG"), np.rint(expected[2] * 255))
    assert "2 seeds for 1 picture" in refused(draw(RED, "--seed", "1,2"))
    assert "2 seeds for 3 pictures" in refused(draw(RED, "--count", 3, "--seed", "1,2"))


def test_a_prompt_in_any_script_names_the_file_and_is_kept(draw, tmp_path):
    assert draw("赤い 丸!")[1] == "赤い-丸.png\n"
    with Image.open(tmp_path / "赤い-丸.png") as image:
        assert image.text["prompt"] == "赤い 丸!"
    assert draw("?!")[1] == "picture.png\n"


def test_a_prompt_too_long_is_drawn_and_told(draw, tmp_path):
    status, out, err = draw(RED + " and zzz", RED + " and zzz", "--output", "p.png")
    assert (status, out) == (0, "p-0.png\np-1.png\n")
    assert err == "minild: a prompt is longer than the 14 tokens that fit: left out are 2 words, 'd zzz'\n"
    _, _, err = draw(RED + " and" + " red" * 300, "--output", "p.png")
    assert err.endswith("left out are 301 words, 'd red red red red' ...\n")
    assert len(draw(RED + " and " + "z" * 9000, "--output", "p.png")[2]) < 200


def test_attention_writes_a_sheet_beside_the_same_picture(draw, tmp_path):
    draw(RED, "--output", "plain.png")
    assert draw(RED, "--output", "p.png", "--attention", "words.png")[:2] == (0, "p.png\nwords.png\n")
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    sheet, picture = pixels(tmp_path / "words.png"), pixels(tmp_path / "p.png")
    assert sheet.shape[1] == 6 * 168  # the picture and eleven words, 160 pixels each and a gap
    np.testing.assert_array_equal(sheet[4:164:20, 4:164:20], picture)
    status, out, _ = draw(RED, "green", "--output", "both.npy", "--attention", "both.png")
    assert (status, out) == (0, "both.npy\nboth-0.png\nboth-1.png\n")
    assert (tmp_path / "both-0.png").read_bytes() == (tmp_path / "words.png").read_bytes()
    assert pixels(tmp_path / "both-1.png").shape[1] == 2 * 168


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words.jpg", "attention words.jpg: expected a name that ends in .png"),
        ("p.png", "attention p-0.png: a picture goes there, give another name"),
        ("nowhere/words.png", "cannot write nowhere/words-0.png"),
    ],
)
def test_an_attention_sheet_that_cannot_be_written_is_refused(draw, tmp_path, name, message):
    assert message in refused(draw(RED, GREEN, "--output", "p.png", "--attention", name))
    assert not list(tmp_path.iterdir())
