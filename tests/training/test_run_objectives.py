"""Whole trainings of every objective: what the folder says, what it draws, and what a resume goes on with."""

import dataclasses
import json
import math

import numpy as np
import pytest

from minild import checkpoints, training
from minild.errors import UserError
from minild.pipelines import load
from minild.pipelines.info import describe
from minild.training import run, stage, tuning
from minild.training.presets import OBJECTIVES, StagePreset
from training.tiny_preset import TINY

TOLD = {
    "epsilon": "betas from 0.00085 to 0.012; sampler ddim",
    "v_prediction": "0.012, the U-Net tells v_prediction; sampler ddim",
    "sample": "0.012, the U-Net tells sample; sampler ddim",
    "zero-snr": "0.012, rescaled to zero terminal SNR, the U-Net tells v_prediction; sampler ddim",
    "learned-variance": "0.012, the U-Net tells its variance; sampler ddpm",
    "flow": "1000 steps, a rectified flow, shift 1; sampler flow-euler",
}
PROMPT = "a red circle above a blue square on a white background"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(run, "preset_for", lambda dataset: TINY)
    monkeypatch.setattr(run, "SAMPLES", 2)
    monkeypatch.setattr(stage, "SHEETS", 1)


def weights(folder):
    return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_of_every_objective_draws_and_is_told(objective, tmp_path):
    training.train("shapes", tmp_path / "out", steps=3, objective=objective)
    pipeline = load(tmp_path / "out")
    assert pipeline.schedule.config["prediction_type"] == {
        "flow": "flow_prediction", "zero-snr": "v_prediction", "learned-variance": "epsilon"
    }.get(objective, objective)  # fmt: skip
    pictures = pipeline.text_to_image(PROMPT, steps=3, guidance_scale=2.0)
    assert np.isfinite(pictures).all() and pictures.std() > 0
    [line] = [line for line in describe(tmp_path / "out") if line.startswith("schedule ")]
    assert line.endswith(TOLD[objective])
    named = "" if objective == "epsilon" else f" --objective {objective}"  # the preset's own
    assert f"--seed 0{named} --output" in pipeline.record["command"]


@pytest.mark.parametrize("objective", ["flow", "learned-variance"])
def test_a_resume_goes_on_with_the_objective_it_was_begun_with(objective, tmp_path):
    training.train("shapes", tmp_path / "whole", steps=4, objective=objective)
    training.train("shapes", tmp_path / "out", steps=2, objective=objective)
    assert weights(tmp_path / "out") != weights(tmp_path / "whole")
    training.train("shapes", tmp_path / "out", steps=4, resume=True)
    state = checkpoints.newest(tmp_path / "out").state
    others = {"regularisation": "kl", "condition": "text", "first_stage": None}
    assert state["choices"] == others | {"objective": objective}
    assert state["taken"] == {"autoencoder": 2, "diffusion": 4}
    assert load(tmp_path / "out").schedule.given == load(tmp_path / "whole").schedule.given
    with pytest.raises(UserError, match=f"is a training with objective {objective}, not epsilon"):
        training.train("shapes", tmp_path / "out", steps=5, resume=True, objective="epsilon")


def test_a_preset_may_say_the_objective_and_what_goes_with_it(tmp_path):
    """The schedule's further fields, times by the logit-normal, and offset noise."""
    preset = dataclasses.replace(
        TINY, objective="flow", schedule={"shift": 3.0}, times="logit_normal", offset_noise=0.1, min_snr=5.0
    )
    training.train("shapes", tmp_path, steps=2, preset=preset)
    pipeline = load(tmp_path)
    assert pipeline.schedule.shift == 3 and pipeline.sampler == "flow-euler"
    assert np.isfinite(pipeline.text_to_image(PROMPT, steps=2)).all()


@pytest.mark.parametrize("posterior", ["sample", "mode"])
def test_what_stage_two_learns_of_a_posterior(posterior, tmp_path, monkeypatch):
    """Its variance, and with it the scaling factor, its visits, and what a fine-tuning learns later."""
    wide = dataclasses.replace(TINY, kl_weight=10.0, posterior=posterior)
    seen = {}

    class Seen(run.DiffusionObjective):
        def __init__(self, means, deviations, factor, *arguments, **settings):
            super().__init__(means, deviations, factor, *arguments, **settings)
            seen.update(deviations=deviations, std=np.sqrt(means.var() + (deviations**2).mean()), factor=factor)

    for module in (run, tuning):
        monkeypatch.setattr(module, "DiffusionObjective", Seen)
    training.train("shapes", tmp_path / "out", steps=20, preset=wide)
    assert (seen["deviations"] > 0.1 * seen["std"]).any() == (posterior == "sample")
    assert seen["std"] * seen["factor"] == pytest.approx(1, rel=0.05)
    pipeline = load(tmp_path / "out")
    assert pipeline.posterior == posterior
    seen.clear()
    tuning.objective_of(tuning.Lesson(pipeline, np.zeros((2, 32, 32, 3), np.uint8), [("red",)] * 2, 32))
    assert seen["deviations"].any() == (posterior == "sample")


def test_zero_terminal_snr_trains_and_draws_from_noise_alone(tmp_path):
    """ᾱ_T is 0, drawing begins there, and offset noise goes with it; with every sampler that knows of it."""
    preset = dataclasses.replace(TINY, objective="zero-snr", offset_noise=0.1)
    training.train("shapes", tmp_path, steps=2, preset=preset)
    pipeline = load(tmp_path)
    assert pipeline.schedule.alphas_cumprod[-1] == 0
    assert pipeline.schedule.timesteps(5)[0] == 999
    for sampler in ("ddim", "ddpm", "euler", "dpmpp-2m", "unipc"):
        pictures = pipeline.text_to_image(PROMPT, steps=5, sampler=sampler, guidance_rescale=0.7)
        assert np.isfinite(pictures).all() and pictures.std() > 0, sampler


def test_a_learnt_variance_is_trained_and_used_by_ddpm_alone(tmp_path):
    """Others drop the half of the channels that tell it; and it goes with v and zero terminal SNR."""
    zero_snr = OBJECTIVES["zero-snr"]
    preset = dataclasses.replace(TINY, objective="learned-variance", schedule=zero_snr)
    training.train("shapes", tmp_path / "out", steps=10, preset=preset)
    lines = (tmp_path / "out" / "training" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [math.isfinite(line["vlb"]) for line in metrics if line["stage"] == "diffusion"] == [True]
    pipeline = load(tmp_path / "out")
    assert pipeline.unet.config["out_channels"] == 2 * pipeline.vae.config["latent_channels"]
    assert pipeline.sampler == "ddpm" and pipeline.schedule.alphas_cumprod[-1] == 0
    pictures = {name: pipeline.text_to_image(PROMPT, steps=4, sampler=name) for name in ("ddpm", "ddim", "dpmpp-2m")}
    assert all(np.isfinite(each).all() for each in pictures.values())
    pipeline.sampler = "ddim"
    pipeline.save_pretrained(tmp_path / "ddim")  # and it is still known why the U-Net has more channels
    again = load(tmp_path / "ddim")
    np.testing.assert_array_equal(again.text_to_image(PROMPT, steps=4), pictures["ddim"])
    np.testing.assert_array_equal(again.text_to_image(PROMPT, steps=4, sampler="ddpm"), pictures["ddpm"])


def test_another_learnt_variance_is_not_trained(tmp_path):
    preset = dataclasses.replace(TINY, schedule={"variance_type": "learned"})
    with pytest.raises(UserError, match="variance_type = 'learned' is not trained: use 'learned_range'"):
        training.train("shapes", tmp_path, steps=1, preset=preset)


def test_a_fixed_variance_needs_no_channels(tmp_path):
    preset = dataclasses.replace(TINY, schedule={"variance_type": "fixed_small"})
    training.train("shapes", tmp_path, steps=1, preset=preset)
    assert load(tmp_path).unet.config["out_channels"] == 4


def test_unknown_names_in_a_preset_are_refused_when_it_is_made():
    with pytest.raises(UserError, match="unknown times 'cosine': use one of uniform, logit_normal"):
        dataclasses.replace(TINY, times="cosine")
    with pytest.raises(UserError, match="unknown optimizer 'sgd': use one of adamw, muon"):
        StagePreset(learning_rate=1e-3, batch_size=8, optimizer="sgd")


def test_an_unknown_objective_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="unknown objective 'eps': use one of epsilon, v_prediction, sample, zero-snr"):
        training.train("shapes", tmp_path / "out", steps=1, objective="eps")
    assert not (tmp_path / "out").exists()
