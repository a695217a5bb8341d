"""minild txt2img: one line with exit status 2 for every mistake of the user, and nothing is written."""

import json
import sys

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused
from safetensors.numpy import load_file, save_file

RED, GREEN = tiny_pipeline.CAPTIONS


def damaged(model, folder, damage):
    """A copy of the tiny pipeline, damaged."""
    import shutil

    shutil.copytree(model, folder)
    damage(folder)
    return folder


def _no_unet(folder):
    (folder / "unet").rename(folder / "elsewhere")


def _field_that_changes_the_result(folder):
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"act_fn": "relu"}))


def _truncated(folder):
    path = folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _missing_weight(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_out.bias"]
    save_file(state, path)


def _misshapen_weight(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"conv_out.bias": np.zeros(7, np.float32)}, path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (_no_unet, "has no folder unet"),
        (_field_that_changes_the_result, "act_fn = 'relu' is not supported"),
        (_truncated, "is not a whole safetensors file"),
        (_missing_weight, "missing conv_out.bias"),
        (_misshapen_weight, "conv_out.bias has shape (7,), expected (2,)"),
    ],
)
def test_a_broken_model_is_refused_and_nothing_is_written(run, model, tmp_path, damage, message):
    folder = damaged(model, tmp_path / "broken", damage)
    before = sorted(tmp_path.iterdir())
    assert message in refused(run("txt2img", RED, "--model", folder, "--output", "p.png"))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "nowhere"], "nowhere is no pipeline"),
        (["--steps", "0"], "--steps: expected a whole number from 1, got '0'"),
        (["--steps", "1001"], "steps: expected 1 to 1000, got 1001"),
        (["--steps", "many"], "--steps: expected a whole number from 1, got 'many'"),
        (["--count", "0"], "--count: expected a whole number from 1, got '0'"),
        (["--seed", "-1"], "--seed: expected a whole number from 0, got '-1'"),
        (["--seed", "1,"], "--seed: expected a whole number from 0, got ''"),
        (["--clip-skip", "-1"], "--clip-skip: expected a whole number from 0, got '-1'"),
        (["--clip-skip", "2"], "clip skip must be from 0 to 1"),
        (["--guidance-rescale", "1.5"], "guidance rescale must be from 0 to 1, got 1.5"),
        (["--guidance-rescale", "nan"], "guidance rescale must be from 0 to 1, got nan"),
        (["--guidance", "inf"], "guidance must be a finite number"),
        (["--guidance=-inf", "--negative-prompt", "cloud"], "guidance must be a finite number, got -inf"),
        (["--guidance", "strong"], "--guidance: invalid float value: 'strong'"),
        (["--sampler", "magic"], "unknown sampler 'magic': use one of ddpm, ddim"),
        (["--size", "11x10"], "size 11 x 10 is not divisible by 2: use multiples of 2 pixels"),
        (["--size", "0"], "--size: expected a size such as 64"),
        (["--size", "8x8x8"], "--size: expected a size such as 64"),
        (["--size", "4096"], "--size: expected a size such as 64 or 48x64 (height x width, up to 2048)"),
        (["--size", "99999999999"], "--size: expected a size such as 64"),
        (["--dtype", "int8"], "dtype: expected one of"),
        (["--device", "tpu"], "unknown device 'tpu': use cpu or cuda"),
        (["--model", ""], "--model: expected a name, got an empty text"),
        (["--output", ""], "--output: expected a name, got an empty text"),
        (["--output", "p.jpg"], "output p.jpg: expected a name that ends in .png or .npy"),
        (["--output", "nowhere/p.png"], "cannot write nowhere/p.png: No such file or directory"),
        (["--latents", "nowhere.npy"], "cannot read nowhere.npy: No such file or directory"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--negative-prompt", "\udcff"], "not valid text"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(run, tmp_path, arguments, message):
    arguments = arguments if "--model" in arguments else [*arguments, "--model", "MODEL"]
    assert message in refused(run("txt2img", RED, *arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompts", [[""], [" \t"], [RED, ""]])
def test_an_empty_prompt_is_refused(draw, tmp_path, prompts):
    assert "a prompt is empty" in refused(draw(*prompts))
    assert not list(tmp_path.iterdir())


def _text(path):
    path.write_text("not numbers")


def _cut(path):
    np.save(path, np.zeros((1, 4, 4, 2)))
    path.write_bytes(path.read_bytes()[:150])


@pytest.mark.parametrize(
    "make, message",
    [
        (_text, "bad.npy is no .npy file of numbers"),
        (lambda path: path.write_bytes(b""), "bad.npy is no .npy file of numbers"),
        (_cut, "bad.npy is no .npy file of numbers"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "bad.npy is no .npy file of numbers"),
        (lambda path: path.mkdir(), "cannot read bad.npy: Is a directory"),
        (lambda path: np.save(path, np.zeros((4, 4, 2))), "expected latents of shape (N, h, w, c), got (4, 4, 2)"),
        (lambda path: np.save(path, np.zeros((0, 4, 4, 2))), "got (0, 4, 4, 2)"),
        (lambda path: np.save(path, np.zeros((1, 4, 4, 3))), "expected shape (N, h, w, 2)"),
        (lambda path: np.save(path, np.full((1, 4, 4, 2), np.inf)), "not finite"),
        (lambda path: np.save(path, np.full((1, 4, 4, 2), "x")), "real numbers"),
    ],
)
def test_bad_latents_are_refused(draw, tmp_path, make, message):
    make(tmp_path / "bad.npy")
    assert message in refused(draw(RED, "--latents", "bad.npy", "--output", "p.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npy"]


def test_prompts_and_latents_that_do_not_go_together(draw, tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((3, 4, 4, 2)))
    assert "2 prompts do not go with 3 latents" in refused(draw(RED, GREEN, "--latents", "three.npy"))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(draw, tmp_path, monkeypatch):
    def no_work(*arguments, **settings):
        raise AssertionError("it began")

    monkeypatch.setattr("minild.pipelines.load", no_work)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "p-1.png").mkdir()
    assert "cannot write file/p.png: Not a directory" in refused(draw(RED, "--output", "file/p.png"))
    assert "cannot write folder.png: it is a folder" in refused(draw(RED, "--output", "folder.png"))
    assert "cannot write p-1.png: it is a folder" in refused(draw(RED, GREEN, "--output", "p.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "p-1.png"]


def test_a_write_that_fails_leaves_the_old_file_whole(draw, tmp_path, monkeypatch):
    (tmp_path / "p.png").write_bytes(b"old")

    def full(self, file, *arguments, **settings):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert "cannot write p.png: No space left on device" in refused(draw(RED, "--output", "p.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
    assert (tmp_path / "p.png").read_bytes() == b"old"


def test_a_gpu_that_is_not_there(draw, tmp_path, monkeypatch):
    from minild import backend

    monkeypatch.setattr(backend, "_devices", {"cpu": backend._devices["cpu"]})
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where CuPy is not installed
    assert "--device cuda" in refused(draw(RED, "--device", "cuda"))
    assert not list(tmp_path.iterdir())


def test_numbers_too_large_are_one_line_too(draw, tmp_path, monkeypatch):
    """In the threads that draw, NumPy would warn of them, and pytest turn that into a fault."""
    monkeypatch.setattr("minild.pipelines.Pipeline.decode", lambda self, z: np.full((1, 8, 8, 3), 1e38, "f") * z.size)
    said = refused(draw(RED, GREEN))
    assert "no numbers in float32: try less guidance, latents of unit variance, or other weights" in said
    assert not list(tmp_path.iterdir())


def test_what_the_system_refuses_is_one_line(run, model, tmp_path):
    long_name = "a" * 300 + ".png"
    assert "too long" in refused(run("txt2img", RED, "--model", model, "--steps", 1, "--output", long_name))
    assert "are too many" in refused(run("txt2img", RED, "--model", model, "--count", 10**11))
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{((((((((((((((\n")
    said = refused(run("txt2img", RED, "--model", model, "--latents", tmp_path / "header.npy"))
    assert "header.npy is no .npy file of numbers" in said
