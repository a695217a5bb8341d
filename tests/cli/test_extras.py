"""A folder with more in it than the models need, and with weights of several names: told, and chosen from."""

import json
import shutil

import pytest
from PIL import Image
from refusal import refused
from safetensors.numpy import load_file, save_file

RED = "a red circle above a blue square on a white background"
TOLD = [
    "text_encoder: passed over 1 weight: logit_scale",
    "unet: passed over 4 fields of config.json: decay, power, inv_gamma, ...",
]


@pytest.fixture
def folder(model, tmp_path):
    """The tiny pipeline, with what EMA training writes, and a weight of CLIP's other half."""
    folder = tmp_path / "mine"
    shutil.copytree(model, folder)
    config = folder / "unet" / "config.json"
    fields = {"decay": 0.9999, "power": 0.75, "inv_gamma": 1.0, "optimization_step": 7}
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    weights = folder / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    save_file(state | {"logit_scale": next(iter(state.values()))}, weights)
    return folder


def test_what_is_passed_over_is_told_in_a_line_each(run, draw, folder, tmp_path):
    status, _, err = run("txt2img", RED, "--model", folder, "--steps", 2, "--output", "mine.png")
    assert (status, err.splitlines()[:2]) == (0, [f"minild: {line}" for line in TOLD])
    draw(RED, "--output", "plain.png")
    with Image.open(tmp_path / "mine.png") as mine, Image.open(tmp_path / "plain.png") as plain:
        assert mine.tobytes() == plain.tobytes()
    status, out, err = run("info", folder)
    assert (status, err) == (0, "")
    for line in TOLD:
        part, phrase = line.split(": ", 1)
        assert f"{part:<14}{phrase}" in out.splitlines()


def test_a_variant_of_the_weights(run, folder, tmp_path):
    """The U-Net's alone, which then draws another picture; a PNG says which it was."""
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: -array for key, array in load_file(weights).items()}, weights.with_suffix(".non_ema.safetensors"))
    pixels = []
    for options in ([], ["--variant", "non_ema"]):
        assert run("txt2img", RED, "--model", folder, "--steps", 1, "--output", "a.png", *options)[0] == 0
        with Image.open(tmp_path / "a.png") as image:
            pixels.append(image.tobytes())
            assert image.text.get("variant") == (options[1] if options else None)
    assert pixels[0] != pixels[1]
    assert run("info", folder, "--variant", "non_ema")[0] == 0
    expected = "has no variant 'fp16' of any weights, only non_ema"
    for command in (["txt2img", RED, "--model", folder], ["info", folder], ["evaluate", folder]):
        assert expected in refused(run(*command, "--variant", "fp16"))
