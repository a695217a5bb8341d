"""minild txt2img --controlnet: a picture that a drawing follows; and from training to drawing."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused
from training.small import drawn

from minild.data.outlines import outlines
from minild.models import ControlNetModel
from minild.training import controlnet as training
from minild.training import dreambooth, tuning

RED = tiny_pipeline.CAPTIONS[0]


@pytest.fixture
def net(tmp_path):
    """The folder of a random ControlNet for the tiny pipeline, beside a picture `look.png`, all in "."."""
    drawn(ControlNetModel.from_unet(tiny_pipeline.make().unet, f=2)).save_pretrained(tmp_path / "net")
    picture = np.full((16, 16, 3), 255, np.uint8)
    picture[4:12, 2:10] = 0
    Image.fromarray(picture).save(tmp_path / "look.png")
    return "net"


def test_it_follows_the_picture(draw, net, tmp_path):
    def picture(*options):
        assert draw(RED, "--output", "p.npy", *options)[::2] == (0, "")
        return np.load(tmp_path / "p.npy")

    led = ("--controlnet", net, "--control", "look.png")
    alone, whole, half = picture(), picture(*led), picture(*led, "--control-scale", 0.5)
    assert np.abs(whole - alone).max() > 0.01 and np.abs(whole - half).max() > 0.001
    np.testing.assert_array_equal(picture(*led, "--control-scale", 0), alone)
    outlined = picture(*led, "--outline")
    assert np.abs(outlined - whole).max() > 1e-4
    small = np.array(Image.open(tmp_path / "look.png").resize((8, 8), Image.Resampling.BOX))
    Image.fromarray(outlines(small[None])[0]).save(tmp_path / "outlines.png")
    np.testing.assert_array_equal(picture("--controlnet", net, "--control", "outlines.png"), outlined)
    assert picture(*led, "--size", "12x8", "--count", 2).shape == (2, 12, 8, 3)
    np.save(tmp_path / "z.npy", np.ones((1, 3, 5, 2), np.float32))
    assert picture(*led, "--latents", "z.npy").shape == (1, 6, 10, 3)


@pytest.mark.parametrize(("command", "size"), [
    (("img2img",), (8, 12)), (("inpaint", "--mask", "mask.png"), (8, 12)), (("outpaint", "--right", 4), (8, 16)),
])  # fmt: skip
def test_what_begins_with_a_picture_follows_another(run, net, tmp_path, rng, command, size):
    Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    Image.new("L", (12, 8), 255).save(tmp_path / "mask.png")
    command, *more = command

    def picture(*options):
        settings = ("--model", "MODEL", "--steps", 3, "--output", "p.png", "--sheet", "s.png")
        assert run(command, "in.png", RED, *more, *settings, *options) == (0, "p.png\n", "")
        with Image.open(tmp_path / "p.png") as image, Image.open(tmp_path / "s.png") as sheet:
            return np.asarray(image).astype(int), image.text, sheet.width

    led = ("--controlnet", net, "--control", "look.png", "--outline")
    (alone, _, narrow), (whole, said, wide) = picture(), picture(*led)
    assert whole.shape == (*size, 3) and np.abs(whole - alone).max() > 2
    assert (said["controlnet"], said["control"], said["outline"]) == ("net", "look.png", "yes")
    assert wide > narrow  # what was followed is shown
    np.testing.assert_array_equal(picture(*led, "--control-scale", 0)[0], alone)
    assert "--control needs --controlnet" in refused(run(command, "in.png", RED, *more, "--control", "look.png"))


def test_a_png_says_which(draw, net, tmp_path):
    options = ("--controlnet", net, "--control", "look.png", "--control-scale", 0.5, "--outline")
    assert draw(RED, "--output", "p.png", *options)[0] == 0
    said = Image.open(tmp_path / "p.png").text
    assert (said["controlnet"], said["control"], said["control_scale"], said["outline"]) == (
        "net", "look.png", "0.5", "yes"
    )  # fmt: skip


def test_mistakes(draw, net, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    wide = {**tiny_pipeline.make().unet.config, "block_out_channels": [16, 16]}
    wide = {field: value for field, value in wide.items() if field in ControlNetModel.defaults}
    ControlNetModel.from_config(wide | {"conditioning_embedding_out_channels": [4, 8]}).save_pretrained("wide")
    for options, message in (
        (("--controlnet", net), "--controlnet needs --control"),
        (("--control", "look.png"), "--control needs --controlnet"),
        (("--outline",), "--outline needs --controlnet"),
        (("--control-scale", 1), "--control-scale needs --controlnet"),
        (("--control-scale", 0), "--control-scale needs --controlnet"),
        (("--controlnet", "wide", "--control", "look.png"), "wide is of another model: its block_out_channels is"),
        (("--controlnet", "none", "--control", "look.png"), "none is no ControlNet"),
        (("--controlnet", "look.png", "--control", "look.png"), "look.png is no ControlNet"),
        (("--controlnet", net, "--control", "none.png"), "cannot read none.png"),
        (("--controlnet", net, "--control", "text.png"), "cannot read text.png"),
        (("--controlnet", net, "--control", "look.png", "--control-scale", "nan"), "must be a finite number"),
        (("--controlnet", net, "--control", "look.png", "--size", 7), "not divisible by 2"),
    ):
        assert message in refused(draw(RED, "--output", "p.png", *options)), message
        assert not (tmp_path / "p.png").exists()


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of one picture, `set`; and no sheets, which take longer than a few steps."""
    for module in (training, dreambooth, tuning):
        monkeypatch.setattr(module, "draw_sheet", lambda *arguments, **settings: None)
    (tmp_path / "set").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "set" / "a.png")


def test_from_pictures_to_a_drawing_that_follows_one(run, draw, pictures):
    data = ("--model", "MODEL", "--data", "set", "--steps", 1, "--batch-size", 1)
    assert run("train", "controlnet", *data, "--output", "new", "--prompt", "a circle")[:2] == (0, "new\n")
    assert draw("a circle", "--controlnet", "new", "--control", "set/a.png", "--outline")[0] == 0
    assert "holds a model already" in refused(run("train", "controlnet", *data, "--output", "new"))


def test_from_pictures_to_a_pipeline_that_knows_a_thing(run, pictures):
    data = ("--model", "MODEL", "--data", "set", "--steps", 1, "--batch-size", 1, "--prompt", "a sks circle")
    kind = ("--class-prompt", "a circle", "--class-pictures", 1, "--text-encoder")
    assert run("train", "dreambooth", *data, *kind, "--output", "mine")[:2] == (0, "mine\n")
    assert run("txt2img", "a sks circle", "--model", "mine", "--steps", 1)[0] == 0


def test_from_pictures_to_a_pipeline_that_went_on_learning(run, pictures):
    data = ("--model", "MODEL", "--data", "set", "--steps", 1, "--batch-size", 1, "--prompt", "a circle")
    assert run("train", "finetune", *data, "--text-encoder", "--output", "mine")[:2] == (0, "mine\n")
    assert run("txt2img", "a circle", "--model", "mine", "--steps", 1)[0] == 0


@pytest.mark.parametrize(("what", "options", "message"), [
    ("dreambooth", (), "a dreambooth needs --prompt"),
    ("dreambooth", ("--prompt", "a sks dog", "--prior-weight", 2), "need a class prompt"),
    ("dreambooth", ("--prompt", "a", "--class-prompt", "b", "--class-pictures", 0), "expected a whole number from 1"),
    ("dreambooth", ("--prompt", "a", "--rank", 2), "--rank is not for dreambooth"),
    ("controlnet", ("--class-prompt", "a dog"), "--class-prompt is not for controlnet, only for dreambooth"),
    ("controlnet", ("--prior-weight", 0), "--prior-weight is not for controlnet, only for dreambooth"),
    ("controlnet", ("--text-encoder",), "is not for controlnet, only for lora and dreambooth and finetune"),
])  # fmt: skip
def test_what_training_refuses(run, pictures, what, options, message):
    command = ("train", what, "--model", "MODEL", "--data", "set", "--output", "o", "--steps", 1)
    assert message in refused(run(*command, *options))


@pytest.mark.parametrize("what", ["dreambooth", "finetune", "controlnet"])
def test_training_needs_a_model_and_pictures(run, what):
    assert f"a {what} needs --model" in refused(run("train", what, "--data", "set", "--output", "o"))
    assert f"a {what} needs --data" in refused(run("train", what, "--model", "MODEL", "--output", "o"))
