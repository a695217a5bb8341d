"""minild img2img, inpaint, outpaint: what they draw, write and print; pictures and masks of every kind."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.pipelines import load

RED, _ = tiny_pipeline.CAPTIONS


@pytest.fixture
def picture(tmp_path, rng):
    """"in.png", 8 x 12 pixels: as it is, for the tiny pipeline's size is 8 x 8."""
    pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return pixels


@pytest.fixture
def mask(tmp_path):
    """"mask.png": the right half is to be drawn."""
    pixels = np.zeros((8, 12), np.uint8)
    pixels[:, 6:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return pixels > 0


@pytest.fixture
def rework(run):
    def call(command, *arguments):
        return run(command, "in.png", RED, *arguments, "--model", "MODEL", "--steps", 4, "--output", "out.png")

    return call


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_img2img_writes_the_pictures(rework, model, picture, tmp_path):
    options = "--strength", 0.5, "--count", 2, "--seed", 7, "--sampler", "euler", "--guidance", 2, "--sheet", "s.png"
    assert rework("img2img", *options) == (0, "out-0.png\nout-1.png\n", "")
    drawn = load(model).image_to_image(picture, RED, 0.5, steps=4, seed=[7, 8], sampler="euler", guidance_scale=2)
    for i in range(2):
        np.testing.assert_array_equal(pixels_of(tmp_path / f"out-{i}.png"), np.rint(drawn[i] * 255))
        with Image.open(tmp_path / f"out-{i}.png") as image:
            said = {"prompt": RED, "image": "in.png", "strength": "0.5", "seed": str(7 + i), "guidance": "2.0"}
            assert image.text.items() >= said.items()
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 3 * 90  # what was given, and two drawn


def test_inpaint_keeps_what_is_black(rework, model, picture, mask, tmp_path):
    assert rework("inpaint", "--mask", "mask.png", "--sheet", "s.png") == (0, "out.png\n", "")
    drawn = pixels_of(tmp_path / "out.png")
    np.testing.assert_array_equal(drawn[~mask], picture[~mask])
    expected = load(model).inpaint(picture, mask, RED, steps=4)
    np.testing.assert_array_equal(drawn, np.rint(expected[0] * 255))
    assert (tmp_path / "s.png").is_file()


def test_outpaint_adds_at_the_edges(rework, picture, tmp_path):
    assert rework("outpaint", "--right", 4, "--top", 2) == (0, "out.png\n", "")
    drawn = pixels_of(tmp_path / "out.png")
    assert drawn.shape == (10, 16, 3)
    np.testing.assert_array_equal(drawn[2:, :12], picture)


@pytest.mark.parametrize(("size", "shape"), [((17, 40), (8, 18, 3)), ((1, 1), (8, 8, 3)), ((300, 120), (20, 8, 3))])
def test_a_picture_of_any_size_is_made_to_fit(rework, rng, tmp_path, size, shape):
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    assert rework("img2img")[0] == 0
    assert pixels_of(tmp_path / "out.png").shape == shape
    assert rework("img2img", "--size", "8x10")[0] == 0
    assert pixels_of(tmp_path / "out.png").shape == (8, 10, 3)


@pytest.mark.parametrize("kind", ["alpha", "palette", "cmyk", "16 bits", "turned", "animated"])
def test_a_picture_of_any_kind_is_read(rework, picture, tmp_path, kind):
    image = Image.fromarray(picture)
    name, settings = tmp_path / "in.png", {"format": "png"}
    if kind == "alpha":
        image.putalpha(Image.new("L", image.size, 90))
    elif kind == "palette":
        image = image.quantize(16)
    elif kind == "cmyk":
        image, settings = image.convert("CMYK"), {"format": "tiff"}
    elif kind == "16 bits":
        image = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        settings["exif"] = exif
    elif kind == "animated":
        settings = {"format": "gif", "save_all": True, "append_images": [Image.new("RGB", image.size)]}
    image.save(name, **settings)
    assert rework("img2img")[0] == 0
    assert pixels_of(tmp_path / "out.png").shape == ((12, 8, 3) if kind == "turned" else (8, 12, 3))


def test_a_transparent_mask_is_where_to_draw(rework, picture, mask, tmp_path):
    layers = np.zeros((8, 12, 4), np.uint8)
    layers[..., 3] = np.where(mask, 0, 255)
    Image.fromarray(layers).save(tmp_path / "mask.png")
    assert rework("inpaint", "--mask", "mask.png")[0] == 0
    drawn = pixels_of(tmp_path / "out.png")
    np.testing.assert_array_equal(drawn[~mask], picture[~mask])
    assert (drawn[mask] != picture[mask]).any()


@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_of_a_large_jpeg(rework, rng, tmp_path, turned):
    """Which is decoded at an eighth of its size, and may lie on its side: the mask is as large as it looks."""
    height, width = 611, 407
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png", "jpeg", exif=exif)
    seen = (width, height) if turned else (height, width)
    mask = np.zeros(seen, np.uint8)
    mask[: seen[0] // 2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert rework("inpaint", "--mask", "mask.png") == (0, "out.png\n", "")
    assert pixels_of(tmp_path / "out.png").shape == ((8, 12, 3) if turned else (12, 8, 3))


@pytest.mark.parametrize(("arguments", "words"), [
    (["img2img", "--strength", 0], "strength must be above 0 and at most 1, got 0"),
    (["img2img", "--strength", 1.5], "strength must be above 0 and at most 1, got 1.5"),
    (["img2img", "--strength", "nan"], "strength must be above 0"),
    (["img2img", "--strength", 0.1], "strength 0.1 of 4 steps is less than one step"),
    (["img2img", "--size", 9], "9 x 9 is not divisible by 2"),
    (["img2img", "--seed", "1,2"], "2 seeds for 1 picture"),
    (["img2img", "--sheet", "s.what"], "sheet s.what: expected a name that ends in .png"),
    (["img2img", "--sheet", "no/s.png"], "cannot write no/s.png"),
    (["img2img", "--count", 20_000], "20,000 pictures are too many"),
    (["img2img", "--sampler", "ddim-inverse"], "ddim-inverse begins with a picture"),
    (["inpaint"], "required: --mask"),
    (["inpaint", "--mask", "no.png"], "cannot read no.png: No such file"),
    (["inpaint", "--mask", "black.png"], "black.png is black all over, or white in too few"),
    (["inpaint", "--mask", "thin.png"], "thin.png is black all over, or white in too few places: make"),
    (["inpaint", "--mask", "small.png"], "the mask is 4 x 4 pixels, the picture 8 x 12: make them alike"),
    (["outpaint"], "nothing to add: give --top, --right, --bottom or --left"),
    (["outpaint", "--right", 3], "8 x 15 is not divisible by 2"),
    (["outpaint", "--right", 2048], "8 x 2060 pixels are too many: 2048 a side is the most"),
    (["img2img", "--sheet", "out.png"], "sheet out.png: a picture is to be written there: name another file"),
    (["outpaint", "--right", -2], "expected a whole number from 0"),
])
def test_a_mistake_is_one_line_and_writes_nothing(rework, picture, tmp_path, arguments, words):
    Image.new("L", (12, 8)).save(tmp_path / "black.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "small.png")
    thin = Image.new("L", (12, 8))
    thin.putpixel((3, 3), 100)
    thin.save(tmp_path / "thin.png")
    before = sorted(tmp_path.iterdir())
    assert words in refused(rework(*arguments))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("content", "words"), [
    (None, "cannot read in.png: No such file or directory"),
    (b"", "cannot read in.png: not a picture"),
    (b"these are words", "cannot read in.png: not a picture"),
])
def test_a_picture_that_cannot_be_read(rework, tmp_path, content, words):
    if content is not None:
        (tmp_path / "in.png").write_bytes(content)
    assert words in refused(rework("img2img"))


def test_a_thin_picture_and_an_empty_prompt(run, rework, tmp_path):
    Image.new("RGB", (5000, 1)).save(tmp_path / "in.png")
    assert "1 x 5000 pixels is too long and thin" in refused(rework("img2img"))
    for command in (("img2img",), ("inpaint", "--mask", "in.png")):
        assert "the prompt is empty" in refused(run(command[0], "in.png", " ", *command[1:], "--model", "MODEL"))
