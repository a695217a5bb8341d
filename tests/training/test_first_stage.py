"""A training that takes the autoencoder of another pipeline: stage one is done before it begins."""

import dataclasses
import json

import pytest

from minild import checkpoints, cli, training
from minild.errors import UserError
from minild.pipelines import load
from minild.training import run, stage
from training.tiny_preset import TINY

PRESET = dataclasses.replace(TINY, channels=(8, 16), latent_channels=3)
OTHER = dataclasses.replace(PRESET, channels=(8, 8, 16), latent_channels=5)  # what it would train by itself
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def small_sheets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SHEETS", 1)
        patch.setattr(run, "SAMPLES", 1)
        yield


@pytest.fixture(scope="module", params=["kl", "vq"])
def pipeline(request, tmp_path_factory):
    """A pipeline of either kind of autoencoder."""
    folder = tmp_path_factory.mktemp("pipelines") / request.param
    preset = dataclasses.replace(PRESET, codebook_size=16, code_width=2)
    training.train("shapes", folder, steps=2, preset=preset, regularisation=request.param)
    return folder


def weights(folder, part="unet"):
    return [parameter.data for parameter in getattr(load(folder), part).parameters()]


def test_the_autoencoder_is_the_pipelines_and_only_stage_two_is_trained(pipeline, tmp_path):
    training.train("shapes", tmp_path, steps=3, seed=1, preset=OTHER, first_stage=str(pipeline), objective="flow")
    assert (tmp_path / VAE).read_bytes() == (pipeline / VAE).read_bytes()
    ours, theirs = load(tmp_path), load(pipeline)
    assert ours.vae.config == theirs.vae.config and type(ours.vae) is type(theirs.vae)
    assert ours.unet.config["in_channels"] == theirs.unet.config["in_channels"]
    assert ours.unet.config["sample_size"] == 16
    record = json.loads((tmp_path / "minild.json").read_text())
    assert {name: taken["steps"] for name, taken in record["stages"].items()} == {"autoencoder": 0, "diffusion": 3}
    assert f" --objective flow --first-stage {pipeline} " in record["command"]


@pytest.mark.parametrize("told", [{"posterior": "mode"}, {}])
def test_what_is_learnt_of_a_posterior_is_as_that_pipeline_says(pipeline, tmp_path, told):
    other, posterior = tmp_path / "other", told.get("posterior", "sample")
    preset = dataclasses.replace(OTHER, posterior={"mode": "sample", "sample": "mode"}[posterior])
    pipe = load(pipeline)
    pipe.record = {name: value for name, value in pipe.record.items() if name != "posterior"} | told
    pipe.save_pretrained(other)
    training.train("shapes", tmp_path / "new", steps=1, preset=preset, first_stage=str(other))
    assert load(tmp_path / "new").posterior == checkpoints.newest(tmp_path / "new").state["preset"]["posterior"]
    assert load(tmp_path / "new").posterior == posterior


def test_goes_on_without_that_pipeline(pipeline, tmp_path):
    """What it needs of it is in its own folder."""
    whole, parts, gone = (tmp_path / name for name in ("whole", "parts", "gone"))
    load(pipeline).save_pretrained(gone)
    how = {"preset": OTHER, "first_stage": str(gone)}
    for folder, steps in ((whole, 4), (parts, 2)):
        training.train("shapes", folder, steps=steps, seed=1, **how)
    gone.rename(tmp_path / "elsewhere")
    training.train("shapes", parts, steps=4, preset=OTHER, resume=True)
    # Each training's learning rate falls to 0 at its own end: the two are alike, not the same.
    assert [x.shape for x in weights(parts)] == [x.shape for x in weights(whole)]
    assert json.loads((parts / "minild.json").read_text())["stages"]["diffusion"]["steps"] == 4


def test_a_model_of_low_resolution_has_those_latents_too(pipeline, tmp_path):
    preset = dataclasses.replace(OTHER, upscaling={"channels": (8, 8, 8, 16)})
    how = {"condition": "low-resolution", "first_stage": str(pipeline)}
    training.train("shapes", tmp_path, steps=1, preset=preset, **how)
    assert load(tmp_path).vae.downsampling == 2


def test_another_one_is_refused_at_a_resume(pipeline, tmp_path):
    training.train("shapes", tmp_path, steps=1, preset=OTHER, first_stage=str(pipeline))
    with pytest.raises(UserError, match=f"with first_stage {pipeline}, not emoji: leave --first-stage out"):
        training.train("shapes", tmp_path, steps=2, preset=OTHER, first_stage="emoji", resume=True)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"first_stage": "nowhere"}, "nowhere is no pipeline: expected a folder"),
        ({"first_stage": "scenes", "size": 36}, "size 36 is not divisible by 8: use a multiple of 8 pixels"),
    ],
)
def test_bad_input_is_told_in_a_line_and_nothing_is_left(changes, words, tmp_path, capsys):
    output = tmp_path / "new"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    assert cli.main(["train", "shapes", "--steps", "1", "--output", str(output), *options]) == 2
    assert words in capsys.readouterr().err
    assert not output.exists()


def test_a_broken_autoencoder_is_told_and_nothing_is_left(pipeline, tmp_path):
    load(pipeline).save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / VAE).write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"broken.vae"):
        training.train("shapes", tmp_path / "new", steps=1, preset=OTHER, first_stage=str(tmp_path / "broken"))
    assert not (tmp_path / "new").exists()
