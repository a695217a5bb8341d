"""minild txt2img --lora and --embedding: what a model has learnt since; and from training to drawing."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused
from safetensors.numpy import save_file

from minild.training import tuning

RED = tiny_pipeline.CAPTIONS[0]


def test_loras_by_their_scales(draw, lora, tmp_path):
    def picture(*options):
        assert draw(RED, "--output", "p.npy", *options)[::2] == (0, "")
        return np.load(tmp_path / "p.npy")

    alone, whole, half = picture(), picture("--lora", lora), picture("--lora", f"{lora}:0.5")
    assert np.abs(alone - whole).max() > 0.01 and np.abs(whole - half).max() > 0.01
    np.testing.assert_array_equal(picture("--lora", f"{lora}:0"), alone)
    other = tmp_path / "other.safetensors"
    other.write_bytes(lora.read_bytes())
    np.testing.assert_allclose(picture("--lora", f"{lora}:0.3", "--lora", f"{other}:0.2"), half, atol=1e-5)


@pytest.mark.parametrize("command", ["img2img", "edit", "interpolate"])
def test_the_other_commands_take_them_too(run, lora, tmp_path, command):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "in.png")
    save_file({"<thing>": np.ones((1, 8), np.float32)}, tmp_path / "thing.safetensors")
    asked = {
        "img2img": ("in.png", "a <thing>"),
        "edit": ("in.png", "--from", RED, "--to", "a <thing>"),
        "interpolate": ("a <thing>", "--frames", 2, "--seed", "1,2"),
    }

    def picture(*options):
        settings = ("--model", "MODEL", "--steps", 2, "--output", "p.png", "--embedding", "thing.safetensors")
        status, _, err = run(command, *asked[command], *settings, *options)
        assert (status, err) == (0, "minild: thing.safetensors: the word <thing>\n")
        with Image.open(tmp_path / "p.png") as image:
            return np.asarray(image).astype(int), image.text

    (alone, _), (whole, said) = picture(), picture("--lora", f"{lora}:0.5")
    assert abs(alone - whole).max() > 2
    assert said["lora"] == "red.safetensors:0.5" and said["embedding"] == "thing.safetensors"


def test_two_files_of_one_name(draw, lora, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "red.safetensors").write_bytes(lora.read_bytes())
    assert draw(RED, "--lora", lora, "--lora", "b/red.safetensors")[0] == 0


def test_a_png_says_which(draw, lora, tmp_path):
    save_file({"<thing>": np.ones((1, 8), np.float32)}, tmp_path / "thing.safetensors")
    status, _, err = draw("a <thing>", "--output", "p.png", "--lora", f"{lora}:0.5", "--embedding", "thing.safetensors")
    assert status == 0 and err == "minild: thing.safetensors: the word <thing>\n"
    said = Image.open(tmp_path / "p.png").text
    assert said["lora"] == "red.safetensors:0.5" and said["embedding"] == "thing.safetensors"


def test_mistakes(draw, lora, tmp_path):
    (tmp_path / "text.safetensors").write_text("no safetensors at all")
    wide = {f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_{s}.weight": np.zeros(shape, "f")
            for s, shape in (("A", (4, 320)), ("B", (320, 4)))}  # fmt: skip
    save_file(wide, tmp_path / "wide.safetensors")
    save_file({"unet.elsewhere.lora_A.weight": wide[next(iter(wide))]}, tmp_path / "half.safetensors")
    for option, file, message in (
        ("--lora", "none.safetensors", "no such file"),
        ("--lora", "text.safetensors", "is not a whole safetensors file"),
        ("--lora", "wide.safetensors", "is of another model: unet: down_blocks.0"),
        ("--lora", "half.safetensors", "elsewhere has one matrix of two, down"),
        ("--lora", f"{lora}:nan", "must be a finite number, got nan"),
        ("--lora", f"{lora}:1e38", "the model gave values that are no numbers"),
        ("--lora", f"{lora}:much", "no such file"),
        ("--lora", "", "expected a name"),
        ("--embedding", lora, "tensors, where a learnt token is one"),
        ("--embedding", "none.safetensors", "no such file"),
    ):
        assert message in refused(draw(RED, "--output", "p.png", option, file)), message
        assert not (tmp_path / "p.png").exists()
    assert "is loaded already" in refused(draw(RED, "--lora", lora, "--lora", lora))
    save_file({"<thing>": np.ones((1, 8), np.float32)}, tmp_path / "thing.safetensors")
    twice = ("--embedding", "thing.safetensors") * 2
    assert "there is a token '<thing>' already" in refused(draw(RED, *twice))


def test_from_pictures_to_a_drawing(run, draw, tmp_path, monkeypatch):
    """With a sheet on the way."""
    (tmp_path / "set").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "set" / "a.png")
    data = ("--model", "MODEL", "--data", "set", "--steps", 2, "--batch-size", 1)
    status, out, _ = run("train", "lora", *data, "--output", "mine.safetensors", "--prompt", "a circle", "--rank", 1)
    assert (status, out) == (0, "mine.safetensors\n")
    sheets = sorted(path.name for path in (tmp_path / "mine-training").glob("*.png"))
    assert sheets == ["lora-000001.png", "lora-000002.png"]
    monkeypatch.setattr(tuning, "draw_sheet", lambda *arguments: None)
    status, out, _ = run("train", "textual-inversion", *data, "--output", "word.safetensors", "--token", "<mine>")
    assert (status, out) == (0, "word.safetensors\n")
    assert draw("a <mine>", "--lora", "mine.safetensors", "--embedding", "word.safetensors")[0] == 0
    assert "no picture has a caption" in refused(run("train", "lora", *data, "--output", "other.safetensors"))
