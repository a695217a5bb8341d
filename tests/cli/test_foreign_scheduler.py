"""A folder whose own scheduler is not supported: it is told, drawn from with another sampler, and saved as it was."""

import json

import numpy as np
import pytest
import tiny_pipeline
from refusal import refused

from minild import pipelines
from minild.diffusion import SAMPLERS

PROMPT = tiny_pipeline.CAPTIONS[0]
# What a folder may state, what is said of its own sampler, and a sampler that shares the fault.
FOREIGN = {
    "an unknown class": ({"_class_name": "SASolverScheduler"}, "_class_name = 'SASolverScheduler'", None),
    "an order": ({"_class_name": "UniPCMultistepScheduler", "solver_order": 4}, "solver_order = 4", "unipc"),
    "an algorithm": (
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "magic"}, "algorithm_type = 'magic'", None,
    ),
    "flow": ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas = True", "dpmpp-2m"),
    "thresholding": ({"_class_name": "LCMScheduler", "thresholding": True}, "thresholding = True", "ddim"),
    "levels": ({"_class_name": "HeunDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas = True", "euler"),
    "a variance": ({"_class_name": "DDPMScheduler", "variance_type": "magic"}, "variance_type = 'magic'", "ddpm"),
    "an interpolation": (
        {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"},
        "interpolation_type = 'log_linear'",
        "euler",
    ),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "foreign"
    tiny_pipeline.make().save_pretrained(folder)
    return folder


def state(folder, **fields):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("kind", FOREIGN)
def test_only_its_own_sampler_is_refused(run, folder, kind):
    fields, fault, other = FOREIGN[kind]
    expected = pipelines.load(folder).text_to_image(PROMPT, steps=2, sampler="pndm")
    state(folder, **fields)
    status, out, err = run("info", "foreign")
    assert (status, err) == (0, "")
    assert "schedule      1000 steps, scaled_linear betas from 0.00085 to 0.012\n" in out
    [line] = [line for line in out.splitlines() if line.startswith("sampler ")]
    assert f"its own sampler {fields['_class_name']} cannot be used (" in line and f"{fault} is not supported" in line
    draw = ("txt2img", PROMPT, "--model", "foreign", "--steps", 2, "--output", "p.npy")
    message = refused(run(*draw))
    assert fault in message and str(fields["_class_name"]) in message
    usable = message.strip().partition("choose one of ")[2].split(", ")
    assert usable == line.partition("choose one of ")[2].split(", ")
    assert "pndm" in usable and set(usable) <= set(SAMPLERS) and (other is None or other not in usable)
    assert run(*draw, "--sampler", "pndm")[0] == 0
    np.testing.assert_array_equal(np.load("p.npy"), expected)
    if other:
        assert f"sampler {other}: {fault}" in refused(run(*draw, "--sampler", other))


def test_what_no_sampler_can_use_is_told_and_not_loaded(run, folder):
    state(folder, prediction_type="flow_prediction")
    status, out, err = run("info", "foreign")
    assert (status, err) == (0, "")
    assert "prediction_type = 'flow_prediction' is not supported" in out and "tokens, 14 to a prompt" in out
    message = refused(run("txt2img", PROMPT, "--model", "foreign", "--sampler", "ddim"))
    assert "its own sampler DDIMScheduler cannot be used" in message and "flow_prediction" in message


def test_the_index_names_the_class_where_the_file_does_not(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    del config["_class_name"]
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    assert pipelines.load(folder).sampler == "ddim"  # for the file does
    for without in (config, config | {"_class_name": None}):
        path.write_text(json.dumps(without))
        assert pipelines.load(folder).sampler == "pndm"


def test_it_is_saved_as_it_was_until_a_sampler_is_chosen(folder, tmp_path):
    state(folder, _class_name="SASolverScheduler", predictor_order=2)
    pipe = pipelines.load(folder)
    pipe.save_pretrained(tmp_path / "again")
    for file in ("scheduler/scheduler_config.json", "model_index.json"):
        was = json.loads((folder / file).read_text())
        if "scheduler" in was:
            was["scheduler"] = ["diffusers", "SASolverScheduler"]
        assert json.loads((tmp_path / "again" / file).read_text()) == was
    pipe.sampler = "euler"
    pipe.save_pretrained(tmp_path / "chosen")
    assert pipelines.load(tmp_path / "chosen").sampler == "euler"


def test_betas_of_its_own(run, folder):
    """They go before a formula, in every sampler; info says so."""
    betas = np.linspace(0.001, 0.01, 1000).tolist()
    state(folder, trained_betas=betas)
    assert "1000 steps, betas of its own; sampler ddim" in run("info", "foreign")[1]
    trained = pipelines.load(folder).text_to_image(PROMPT, steps=2, sampler="euler")
    state(folder, trained_betas=None, beta_schedule="linear", beta_start=0.001, beta_end=0.01)
    np.testing.assert_array_equal(trained, pipelines.load(folder).text_to_image(PROMPT, steps=2, sampler="euler"))
    state(folder, trained_betas=betas[:-1])
    assert "trained_betas: expected num_train_timesteps = 1000 numbers" in refused(
        run("txt2img", PROMPT, "--model", "foreign")
    )


def test_fields_that_its_class_never_heeds_are_passed_over(folder):
    state(folder, use_flow_sigmas=True, use_beta_sigmas=True, solver_order=7, variance_type="learned", anything=[1])
    assert pipelines.load(folder).sampler == "ddim"
