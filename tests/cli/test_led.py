"""minild upscale, variations, semantic2img: what they draw, write and print."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.pipelines import load

RED, _ = tiny_pipeline.CAPTIONS
CLASSES = ["ground", "circle", "Star"]
PROJECTED = {"encoder_hid_dim": 64, "encoder_hid_dim_type": "image_proj"}
MODELS = {
    "upscaler": tiny_pipeline.make_upscaler,
    "wordless": lambda: tiny_pipeline.make_upscaler(words=False),
    "variations": lambda: tiny_pipeline.make_led("image", sample_size=8, **PROJECTED),
    "semantic": lambda: tiny_pipeline.make_led("semantic map", CLASSES, in_channels=5),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("led")
    for name, make in MODELS.items():
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture
def picture(tmp_path, rng):
    pixels = rng.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return pixels


@pytest.fixture
def map_(tmp_path, rng):
    numbers = rng.integers(0, 3, (8, 12), dtype=np.uint8)
    Image.fromarray(numbers).save(tmp_path / "map.png")
    return numbers


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")), image.text


def test_upscale(run, models, picture, tmp_path):
    options = "--noise-level", 70, "--steps", 3, "--seed", 9, "--guidance", 3, "--sheet", "s.png"
    asked = "upscale", "in.png", RED, "--model", models / "upscaler", *options
    assert run(*asked) == (0, "in-upscaled.png\n", "")
    drawn = load(models / "upscaler").upscale(picture, RED, 70, steps=3, guidance_scale=3.0, seed=[9])
    pixels, text = pixels_of(tmp_path / "in-upscaled.png")
    np.testing.assert_array_equal(pixels, np.rint(drawn[0] * 255))
    assert pixels.shape == (12, 8, 3)
    assert text.items() >= {"prompt": RED, "image": "in.png", "noise_level": "70", "seed": "9"}.items()
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 2 * 90


def test_upscale_without_words_to_a_size_and_several(run, models, picture, tmp_path):
    options = "--steps", 2, "--size", 4, "--count", 2, "--output", "out.npy"
    assert run("upscale", "in.png", "--model", models / "wordless", *options) == (0, "out.npy\n", "")
    with Image.open(tmp_path / "in.png") as image:
        small = np.asarray(image.crop((0, 1, 4, 5)))  # its middle
    drawn = load(models / "wordless").upscale(small, steps=2, seed=[0, 1])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), drawn)


def test_variations(run, models, rng, tmp_path):
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    options = "--steps", 2, "--count", 2, "--seed", 4, "--sheet", "s.png", "--output", "a.png"
    assert run("variations", "in.png", "--model", models / "variations", *options) == (0, "a-0.png\na-1.png\n", "")
    drawn = load(models / "variations").condition_to_image(pixels, steps=2, seed=[4, 5])
    for i in range(2):
        np.testing.assert_array_equal(pixels_of(tmp_path / f"a-{i}.png")[0], np.rint(drawn[i] * 255))
    assert (tmp_path / "s.png").is_file()


def test_semantic2img(run, models, map_, tmp_path):
    options = "--model", models / "semantic", "--steps", 2, "--sheet", "s.png"
    assert run("semantic2img", "map.png", *options) == (0, "map-drawn.png\n", "")
    drawn = load(models / "semantic").condition_to_image(map_.astype(int), steps=2, seed=[0])
    np.testing.assert_array_equal(pixels_of(tmp_path / "map-drawn.png")[0], np.rint(drawn[0] * 255))
    palette = Image.fromarray(map_)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert palette.mode == "P"
    palette.save(tmp_path / "p.png")
    np.save(tmp_path / "n.npy", map_)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(np.rot90(map_)).save(tmp_path / "turned.png", exif=exif)
    for name in ("p.png", "n.npy", "turned.png"):
        assert run("semantic2img", name, *options, "--output", "same.png")[0] == 0
        np.testing.assert_array_equal(pixels_of(tmp_path / "same.png")[0], np.rint(drawn[0] * 255))


MISTAKES = {
    "level": (["upscale", "in.png", "--noise-level", 351], "upscaler", "from 0 to 350, got 351"),
    "no number": (["upscale", "in.png", "--noise-level", "much"], "upscaler", "expected a whole number from 0"),
    "words": (["upscale", "in.png", "a cat"], "wordless", "the model takes no prompt"),
    "too large": (["upscale", "in.png", "--size", 1100], "upscaler", "would become 2200 x 2200, and 2048 a side is"),
    "not that kind": (["upscale", "in.png"], "semantic", "so use condition_to_image (minild semantic2img)"),
    "nor that": (["variations", "in.png"], "upscaler", "so use upscale (minild upscale)"),
    "nor this": (["semantic2img", "map.png"], "variations", "so use condition_to_image (minild variations)"),
    "tiny": (["variations", "in.png", "--size", 8], "variations", "8 x 8 pixels are too few: use 16 or more"),
    "no picture": (["upscale", "none.png"], "upscaler", "cannot read none.png: No such file or directory"),
    "no map": (["semantic2img", "none.png"], "semantic", "cannot read none.png: No such file or directory"),
    "colours": (["semantic2img", "in.png"], "semantic", "the picture is RGB, where a map has one number"),
    "text": (["semantic2img", "text.txt"], "semantic", "neither a picture that Pillow can open nor an array"),
    "broken": (["semantic2img", "text.npy"], "semantic", "neither a picture that Pillow can open nor an array"),
    "a stack": (["semantic2img", "stack.npy"], "semantic", "expected a map of shape (H, W), got (2, 8, 8)"),
    "a class": (["semantic2img", "high.png"], "semantic", "a map holds the numbers 0 to 9, where there are 0 ground"),
    "large": (["semantic2img", "large.png"], "semantic", "of 8 x 2056 pixels, and 2048 a side is the most"),
    "large numbers": (["semantic2img", "large.npy"], "semantic", "of 8 x 2056 pixels, and 2048 a side is the most"),
    "lossy": (["semantic2img", "map.jpg"], "semantic", "map.jpg: JPEG changes the numbers: save the map as a PNG"),
    "cut": (["semantic2img", "cut.png"], "semantic", "neither a picture that Pillow can open nor an array"),
    "odd": (["semantic2img", "odd.png"], "semantic", "7 x 8 is not divisible by 2"),
    "sheet": (["semantic2img", "map.png", "--sheet", "s.jpg"], "semantic", "expected a name that ends in .png"),
    "seeds": (["upscale", "in.png", "--count", 2, "--seed", "1,2,3"], "upscaler", "3 seeds for 2 pictures"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(run, models, picture, map_, tmp_path, mistake):
    arguments, model, words = MISTAKES[mistake]
    (tmp_path / "text.txt").write_text("a map\n")
    (tmp_path / "text.npy").write_text("a map\n")
    np.save(tmp_path / "stack.npy", np.zeros((2, 8, 8), int))
    high = map_.copy()
    high[0, :2] = 9, 0
    Image.fromarray(high).save(tmp_path / "high.png")
    Image.fromarray(map_[:7, :8]).save(tmp_path / "odd.png")
    Image.new("L", (2056, 8)).save(tmp_path / "large.png")
    Image.fromarray(map_).save(tmp_path / "map.jpg")
    np.save(tmp_path / "large.npy", np.zeros((8, 2056), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "map.png").read_bytes()[:60])
    before = sorted(path.name for path in tmp_path.iterdir())
    assert words in refused(run(*arguments, "--model", models / model))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
