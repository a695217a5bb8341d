"""scheduler_config.json <-> the noise schedule, and the sampler that a folder asks for."""

from typing import NamedTuple

from minild import pretrained
from minild.diffusion import NoiseSchedule
from minild.diffusion.schedule import require_supported
from minild.errors import UserError

DEFAULT_SAMPLER = "ddim"

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 0,
    "prediction_type": "epsilon",
}
ZERO_SNR = {"rescale_betas_zero_snr": False}
KARRAS = {"use_karras_sigmas": False}
SOLVER = {"timestep_spacing": "linspace", **KARRAS, **ZERO_SNR, "final_sigmas_type": "zero", "solver_order": 2}
DPM_SOLVER = BASE | SOLVER | {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
}


class Reference(NamedTuple):
    """The reference's class for one of our samplers."""

    kind: str
    fields: dict  # those that the class knows, and what it takes where a file lacks them
    settings: tuple = ()  # those that are keywords of our sampler
    fixed: dict = {}  # what our sampler's name says, whatever the file does


REFERENCES = {
    "ddpm": Reference("DDPMScheduler", BASE | ZERO_SNR | {"timestep_spacing": "leading"}),
    "ddim": Reference("DDIMScheduler", BASE | ZERO_SNR | {"timestep_spacing": "leading", "set_alpha_to_one": True}),
    "ddim-inverse": Reference(
        "DDIMInverseScheduler",
        BASE | ZERO_SNR | {"timestep_spacing": "leading", "set_alpha_to_one": True},
    ),
    "pndm": Reference(
        "PNDMScheduler",
        BASE | {"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
        settings=("skip_prk_steps",),
    ),
    "lms": Reference("LMSDiscreteScheduler", BASE | KARRAS | {"timestep_spacing": "linspace"}),
    "euler": Reference(
        "EulerDiscreteScheduler",
        BASE | KARRAS | ZERO_SNR | {"timestep_spacing": "linspace", "final_sigmas_type": "zero"},
    ),
    "euler-a": Reference("EulerAncestralDiscreteScheduler", BASE | ZERO_SNR | {"timestep_spacing": "linspace"}),
    "heun": Reference(
        "HeunDiscreteScheduler",
        BASE | KARRAS | {"timestep_spacing": "linspace", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    "dpmpp-2m": Reference(
        "DPMSolverMultistepScheduler",
        DPM_SOLVER,
        ("lower_order_final",),
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False},
    ),
    "dpmpp-2m-karras": Reference(
        "DPMSolverMultistepScheduler",
        DPM_SOLVER,
        ("lower_order_final",),
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpmpp-2m-sde": Reference(
        "DPMSolverMultistepScheduler",
        DPM_SOLVER,
        ("lower_order_final",),
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "unipc": Reference(
        "UniPCMultistepScheduler",
        BASE | SOLVER | {"solver_type": "bh2", "lower_order_final": True, "predict_x0": True},
        ("solver_order",),
    ),
    "lcm": Reference(
        "LCMScheduler",
        BASE
        | ZERO_SNR
        | {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "timestep_spacing": "leading",
            "set_alpha_to_one": True,
            "original_inference_steps": 50,
            "timestep_scaling": 10.0,
        },
        settings=("original_inference_steps", "timestep_scaling"),
    ),
}


def read_scheduler(folder):
    """-> (NoiseSchedule, name of the sampler) of the scheduler folder. UserError for what is not supported."""
    config = pretrained.read_json(folder / "scheduler_config.json")
    require_supported(config, folder)
    sampler = _sampler_of(config, folder)
    schedule, _ = sampler_schedule(config, sampler)
    return schedule, sampler


def _sampler_of(config, folder):
    kind = config.get("_class_name", scheduler_class(DEFAULT_SAMPLER))
    if kind == "DPMSolverMultistepScheduler":
        algorithm = config.get("algorithm_type", "dpmsolver++")
        require_supported({"algorithm_type": algorithm}, folder, "dpmpp-2m")
        if algorithm == "sde-dpmsolver++":
            return "dpmpp-2m-sde"
        return "dpmpp-2m-karras" if config.get("use_karras_sigmas") else "dpmpp-2m"
    for sampler, reference in REFERENCES.items():
        if reference.kind == kind:
            return sampler
    known = ", ".join(dict.fromkeys(reference.kind for reference in REFERENCES.values()))
    raise UserError(f"{folder}: _class_name = {kind!r} is not supported, use one of {known}")


def sampler_schedule(given, sampler):
    """-> (NoiseSchedule, keywords) for a sampler of minild.diffusion.SAMPLERS, in a folder that states `given`.

    As the reference's from_config of that sampler's class: it takes over the fields that any class's file states, and
    its own defaults for the rest. UserError where it does not support one of them.
    """
    fields = _fields(given, sampler)
    reference = REFERENCES[sampler]
    require_supported(fields, f"sampler {sampler}", sampler)
    return NoiseSchedule(fields, given), {name: fields[name] for name in reference.settings}


def _fields(given, sampler):
    reference = REFERENCES[sampler]
    stated = {k: v for k, v in given.items() if k in reference.fields}
    # As the reference's pipelines have it, whatever an old file says: Stable Diffusion was never meant otherwise.
    return reference.fields | stated | reference.fixed | {"steps_offset": 1}


def scheduler_class(sampler):
    """The reference's class for one of our samplers."""
    return REFERENCES[sampler].kind


def write_scheduler(folder, schedule, sampler):
    """Write scheduler_config.json: the reference's class of that name then samples as minild.diffusion does.

    What a file did not state is not stated here either, so that other samplers still choose their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    defaults = REFERENCES[sampler].fields
    fields = _fields(schedule.given, sampler)
    stated = {k: v for k, v in fields.items() if k in schedule.given or v != defaults[k]}
    config = {"_class_name": scheduler_class(sampler), **stated, "clip_sample": False}
    pretrained.write_json(folder / "scheduler_config.json", config)
