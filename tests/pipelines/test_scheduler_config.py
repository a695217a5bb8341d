"""minild.pipelines.scheduler_config: which sampler a file asks for, and what another one takes over from it."""

import json
import re

import numpy as np
import pytest

from minild.cli.arguments import SAMPLER_NAMES
from minild.diffusion import DIFFUSION_SAMPLERS, SAMPLERS, NoiseSchedule
from minild.errors import UserError
from minild.pipelines.scheduler_config import REFERENCES, read_scheduler, sampler_schedule, write_scheduler

STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
DPM, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}


def read(folder, **fields):
    (folder / "scheduler_config.json").write_text(json.dumps(STABLE_DIFFUSION | fields))
    return read_scheduler(folder)


def written(folder):
    return json.loads((folder / "scheduler_config.json").read_text())


def test_every_sampler_has_a_reference_and_is_named_by_the_command_line():
    assert list(REFERENCES) == list(SAMPLERS) == SAMPLER_NAMES.replace(" or ", ", ").split(", ")


@pytest.mark.parametrize(
    ("fields", "sampler"),
    [
        *(({"_class_name": r.kind}, name) for name, r in REFERENCES.items() if r.kind != DPM and name != "flow-euler"),
        ({"_class_name": DPM}, "dpmpp-2m"),
        ({"_class_name": DPM, "use_karras_sigmas": True}, "dpmpp-2m-karras"),
        ({"_class_name": DPM, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}, "dpmpp-2m-sde"),
        ({"_class_name": DPM, "solver_order": 1}, "dpmpp-2m"),
        ({"_class_name": DPM, "solver_order": 3}, "dpmpp-3m"),
        ({"_class_name": DPM, "solver_order": 3, "use_karras_sigmas": True}, "dpmpp-3m"),
        ({"_class_name": DPM, "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, "dpmpp-3m-sde"),
        ({"_class_name": DPM, "solver_order": 3, "algorithm_type": "dpmsolver", **SIGMA_MIN}, "dpm-solver"),
        ({"_class_name": DPM, "solver_order": 1, "algorithm_type": "sde-dpmsolver", **SIGMA_MIN}, "dpm-solver-sde"),
        ({"_class_name": SINGLESTEP, "solver_order": 3, "algorithm_type": "dpmsolver", **SIGMA_MIN}, "dpm-singlestep"),
    ],
)
def test_the_class_chooses_the_sampler(tmp_path, fields, sampler):
    schedule, name = read(tmp_path, **fields)
    assert name == sampler
    assert schedule.config["use_karras_sigmas"] == fields.get("use_karras_sigmas", False)


def test_a_sampler_takes_over_what_the_file_states_and_its_own_defaults_else(tmp_path):
    """Stable Diffusion's file says no spacing: "leading" for PNDM and DDIM, "linspace" for Euler's kin and solvers."""
    own, _ = read(tmp_path)
    spacings = {name: sampler_schedule(own.given, name)[0].config["timestep_spacing"] for name in DIFFUSION_SAMPLERS}
    leading = {name for name, spacing in spacings.items() if spacing == "leading"}
    assert leading == {"ddpm", "ddim", "ddim-inverse", "pndm", "lcm"}
    for name in DIFFUSION_SAMPLERS:
        schedule, settings = sampler_schedule(own.given, name)
        np.testing.assert_array_equal(schedule.alphas_cumprod, own.alphas_cumprod)
        assert set(settings) == set(REFERENCES[name].settings)
    assert sampler_schedule(own.given, "pndm")[1] == {"skip_prk_steps": True}
    assert sampler_schedule(own.given, "lcm")[0].config["set_alpha_to_one"] is False  # LCM's own would be True
    stated, _ = read(tmp_path, timestep_spacing="trailing", prediction_type="v_prediction")
    for name in DIFFUSION_SAMPLERS:
        config = sampler_schedule(stated.given, name)[0].config
        assert (config["timestep_spacing"], config["prediction_type"]) == ("trailing", "v_prediction")


def test_a_schedule_of_minilds_own_states_everything_but_the_warm_up_of_pndm():
    given = NoiseSchedule().given
    assert sampler_schedule(given, "euler")[0].config["timestep_spacing"] == "leading"
    assert sampler_schedule(given, "pndm")[1] == {"skip_prk_steps": False}
    np.testing.assert_array_equal(sampler_schedule(given, "ddim")[0].alphas_cumprod, NoiseSchedule().alphas_cumprod)


def test_the_name_goes_before_the_files_levels(tmp_path):
    schedule, _ = read(tmp_path, _class_name="UniPCMultistepScheduler", use_karras_sigmas=True, solver_type="bh2")
    configs = {name: sampler_schedule(schedule.given, name)[0].config for name in DIFFUSION_SAMPLERS}
    karras = {name: config["use_karras_sigmas"] for name, config in configs.items()}
    assert {name for name, k in karras.items() if k} == {
        "lms", "euler", "heun", "dpm2", "dpm2-a", "deis", "unipc", "dpmpp-2m-karras", "dpmpp-2m-sde", "dpmpp-3m",
        "dpmpp-3m-sde", "dpm-solver", "dpm-solver-sde", "dpm-singlestep",
    }


def test_the_order_in_a_name_goes_before_the_files(tmp_path):
    """That of a solver without one in its name is the file's; order 1 is "2m", whose first step it is."""
    orders = {}
    for stated in (1, 2, 3):
        schedule, _ = read(tmp_path, _class_name="UniPCMultistepScheduler", solver_order=stated)
        for name in DIFFUSION_SAMPLERS:
            settings = sampler_schedule(schedule.given, name)[1]
            if "solver_order" in settings:
                orders.setdefault(name, []).append(settings["solver_order"])
    two, three, any_order = [1, 2, 2], [3, 3, 3], [1, 2, 3]
    assert orders == {
        "dpmpp-2m": two, "dpmpp-2m-karras": two, "dpmpp-2m-sde": two, "dpmpp-3m": three, "dpmpp-3m-sde": three,
        "dpm-solver": any_order, "dpm-solver-sde": two, "dpm-singlestep": any_order, "deis": any_order,
        "unipc": any_order,
    }


@pytest.mark.parametrize(
    ("kind", "stated", "sampler", "taken"),
    [
        ("UniPCMultistepScheduler", "bh1", "unipc", "bh1"),
        ("UniPCMultistepScheduler", "heun", "unipc", "bh2"),
        (DPM, "bh1", "unipc", "bh2"),  # which DPM-Solver has as "midpoint"
    ],
)
def test_a_type_of_another_family_is_taken_for_an_own_one(tmp_path, kind, stated, sampler, taken):
    schedule, _ = read(tmp_path, _class_name=kind, solver_type=stated)
    assert sampler_schedule(schedule.given, sampler)[1]["solver_type"] == taken


def test_classes_without_zero_snr_pass_it_over(tmp_path):
    schedule, _ = read(tmp_path, _class_name="DDIMScheduler", rescale_betas_zero_snr=True)
    assert schedule.alphas_cumprod[-1] == 0
    assert sampler_schedule(schedule.given, "heun")[0].alphas_cumprod[-1] > 0


@pytest.mark.parametrize("name", DIFFUSION_SAMPLERS)
def test_what_is_written_is_read_again_and_states_no_more(tmp_path, name):
    schedule, _ = read(tmp_path, beta_end=0.0155, prediction_type="v_prediction")
    write_scheduler(tmp_path, schedule, name)
    again, sampler = read_scheduler(tmp_path)
    assert sampler == name and written(tmp_path)["_class_name"] == REFERENCES[name].kind
    assert "timestep_spacing" not in written(tmp_path)
    for each in {name, "euler", "ddim"}:
        (before, settings), (after, same) = (sampler_schedule(s.given, each) for s in (schedule, again))
        assert after.config["beta_end"] == before.config["beta_end"] == 0.0155
        assert after.config["prediction_type"] == before.config["prediction_type"] == "v_prediction"
        assert after.config["timestep_spacing"] == before.config["timestep_spacing"] and settings == same


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_class_name": "SASolverScheduler"}, "_class_name = 'SASolverScheduler' is not supported"),
        ({"_class_name": DPM, "algorithm_type": "magic"}, "algorithm_type = 'magic' is not supported, use 'dpmsolver'"),
        (
            {"_class_name": DPM, "algorithm_type": "dpmsolver"},
            "final_sigmas_type = 'zero' is not supported, use 'sigma_min'",
        ),
        (
            {"_class_name": DPM, "algorithm_type": "sde-dpmsolver", "solver_order": 3, **SIGMA_MIN},
            "solver_order = 3 is not supported, use 1 or 2",
        ),
        ({"_class_name": DPM, "solver_order": 4}, "solver_order = 4 is not supported, use 1 or 2 or 3"),
        ({"_class_name": DPM, "solver_type": "magic"}, "solver_type = 'magic' is not supported"),
        (
            {"_class_name": SINGLESTEP, "algorithm_type": "sde-dpmsolver"},
            "sampler dpm-singlestep: algorithm_type = 'sde-dpmsolver' is not supported, use 'dpmsolver++' or",
        ),
        ({"_class_name": "DEISMultistepScheduler", "solver_order": 4}, "sampler deis: solver_order = 4 is not sup"),
        ({"_class_name": "KDPM2DiscreteScheduler", "prediction_type": "sample"}, "prediction_type = 'sample' is not s"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_type": "magic"}, "solver_type = 'magic' is not supported"),
        ({"_class_name": "UniPCMultistepScheduler", "shift_terminal": 0.1}, "shift_terminal = 0.1 is not supported"),
        ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "interpolation_type = 'log_l"),
        ({"_class_name": "DDIMInverseScheduler", "timestep_spacing": "linspace"}, "timestep_spacing = 'linspace'"),
        ({"_class_name": "HeunDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas = True is not supported"),
        ({"_class_name": "DDPMScheduler", "variance_type": "magic"}, "variance_type = 'magic' is not supported"),
        ({"trained_betas": [0.1]}, "trained_betas: expected num_train_timesteps = 1000 numbers, got an array"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read(tmp_path, **fields)
