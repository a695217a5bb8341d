"""scheduler_config.json <-> the noise schedule, and the sampler that a folder asks for."""

import math
from typing import NamedTuple

from minild import pretrained
from minild.diffusion import FLOW_CLASS, FLOW_SAMPLERS, SAMPLERS, FlowSchedule, NoiseSchedule
from minild.diffusion.schedule import require_supported
from minild.diffusion.variance import LEARNED
from minild.errors import UserError

DEFAULT_SAMPLER, DEFAULT_FLOW_SAMPLER = "ddim", "flow-euler"
VARIANCE_SAMPLER = "ddpm"  # that draws with a learnt variance

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "trained_betas": None,
}
ZERO_SNR = {"rescale_betas_zero_snr": False}
THRESHOLDING = {"thresholding": False}
KARRAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
SECOND_ORDER = BASE | KARRAS | {"timestep_spacing": "linspace", "beta_start": 0.00085, "beta_end": 0.012}
SOLVER = {"timestep_spacing": "linspace", **KARRAS, **THRESHOLDING, "use_flow_sigmas": False, "solver_order": 2}
DPM = {
    "final_sigmas_type": "zero",
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}
EULER = {"interpolation_type": "linear", "timestep_type": "discrete", "sigma_min": None, "sigma_max": None}
UNIPC = {
    **ZERO_SNR,
    "final_sigmas_type": "zero",
    "solver_type": "bh2",
    "lower_order_final": True,
    "predict_x0": True,
    "disable_corrector": [],
    "solver_p": None,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "sigma_min": None,
    "sigma_max": None,
}


class Reference(NamedTuple):
    """The reference's class for one of our samplers."""

    kind: str
    fields: dict  # those that the class knows and heeds, and what it takes where a file lacks them
    settings: tuple = ()  # those that are keywords of our sampler
    fixed: dict = {}  # the values that our sampler's name allows; the first of them where a file has none


def dpm_multistep(algorithm_type, **fixed):
    return Reference(
        "DPMSolverMultistepScheduler",
        BASE | SOLVER | DPM | {**ZERO_SNR, "lower_order_final": True, "euler_at_final": False, "use_lu_lambdas": False},
        ("solver_order", "solver_type", "lower_order_final", "euler_at_final"),
        {"algorithm_type": (algorithm_type,), **fixed},
    )


REFERENCES = {
    "ddpm": Reference(
        "DDPMScheduler",
        BASE | ZERO_SNR | THRESHOLDING | {"timestep_spacing": "leading", "variance_type": "fixed_small"},
        settings=("variance_type",),
    ),
    "ddim": Reference(
        "DDIMScheduler",
        BASE | ZERO_SNR | THRESHOLDING | {"timestep_spacing": "leading", "set_alpha_to_one": True},
    ),
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
        BASE | KARRAS | ZERO_SNR | EULER | {"timestep_spacing": "linspace", "final_sigmas_type": "zero"},
    ),
    "euler-a": Reference("EulerAncestralDiscreteScheduler", BASE | ZERO_SNR | {"timestep_spacing": "linspace"}),
    "heun": Reference("HeunDiscreteScheduler", SECOND_ORDER),
    "dpm2": Reference("KDPM2DiscreteScheduler", SECOND_ORDER),
    "dpm2-a": Reference("KDPM2AncestralDiscreteScheduler", SECOND_ORDER),
    "dpmpp-2m": dpm_multistep("dpmsolver++", solver_order=(2, 1), use_karras_sigmas=(False, None)),
    "dpmpp-2m-karras": dpm_multistep("dpmsolver++", solver_order=(2, 1), use_karras_sigmas=(True,)),
    "dpmpp-2m-sde": dpm_multistep("sde-dpmsolver++", solver_order=(2, 1)),
    "dpmpp-3m": dpm_multistep("dpmsolver++", solver_order=(3,)),
    "dpmpp-3m-sde": dpm_multistep("sde-dpmsolver++", solver_order=(3,)),
    "dpm-solver": dpm_multistep("dpmsolver", final_sigmas_type=("sigma_min",)),
    "dpm-solver-sde": dpm_multistep("sde-dpmsolver", final_sigmas_type=("sigma_min",), solver_order=(2, 1)),
    "dpm-singlestep": Reference(
        "DPMSolverSinglestepScheduler",
        BASE | SOLVER | DPM | {"lower_order_final": False},
        ("algorithm_type", "solver_order", "solver_type", "lower_order_final"),
    ),
    "deis": Reference(
        "DEISMultistepScheduler",
        BASE | SOLVER | {"algorithm_type": "deis", "solver_type": "logrho", "lower_order_final": True},
        ("solver_order", "lower_order_final"),
    ),
    "unipc": Reference(
        "UniPCMultistepScheduler",
        BASE | SOLVER | UNIPC,
        ("solver_order", "solver_type", "predict_x0", "lower_order_final", "disable_corrector"),
    ),
    "lcm": Reference(
        "LCMScheduler",
        BASE
        | ZERO_SNR
        | THRESHOLDING
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
    "flow-euler": Reference(
        FLOW_CLASS,
        KARRAS
        | {
            "num_train_timesteps": 1000,
            "shift": 1.0,
            "use_dynamic_shifting": False,
            "shift_terminal": None,
            "invert_sigmas": False,
            "stochastic_sampling": False,
        },
        settings=("stochastic_sampling",),
    ),
}


class Scheduler(NamedTuple):
    """What a scheduler folder holds. Its own sampler may be one that is not supported: others take its fields over."""

    # The schedule of its own sampler, or of another that serves; None if none does.
    schedule: NoiseSchedule | FlowSchedule | None
    sampler: str | None  # its own, if that can be used
    refusal: str | None = None  # of its own, in words: what it is, and why it cannot be used


def open_scheduler(folder, kind=None):
    """-> Scheduler of the scheduler folder; kind: its class, where the file does not say that itself."""
    given = _read(folder, kind)
    try:
        return Scheduler(*_own(given, folder))
    except UserError as error:
        refusal = f"its own sampler {_kind_of(given)} cannot be used ({error})"
    usable = usable_samplers(given)
    if not usable:
        return Scheduler(None, None, refusal)
    other = DEFAULT_SAMPLER if DEFAULT_SAMPLER in usable else usable[0]
    return Scheduler(sampler_schedule(given, other)[0], None, refusal)


# What a class turns another family's solver_type or algorithm_type into, where it takes a configuration over.
DPM_TAKES = {**dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"), "deis": "dpmsolver++"}
TAKEN_FOR = {
    "DPMSolverMultistepScheduler": DPM_TAKES,
    "DPMSolverSinglestepScheduler": DPM_TAKES,
    "DEISMultistepScheduler": {
        **dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
        **dict.fromkeys(("dpmsolver", "dpmsolver++"), "deis"),
    },
    "UniPCMultistepScheduler": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2"),
}


def read_scheduler(folder):
    """-> (schedule, name of its own sampler) of the scheduler folder. UserError if that is not supported."""
    return _own(_read(folder), folder)


def _read(folder, kind=None):
    config = pretrained.read_json(folder / "scheduler_config.json")
    return config if config.get("_class_name") or not kind else config | {"_class_name": kind}


def _own(given, folder):
    sampler = _sampler_of(given, folder)
    return sampler_schedule(given, sampler)[0], sampler


def usable_samplers(given):
    """The names of the samplers that support what a folder states, a list."""
    return [sampler for sampler in SAMPLERS if _takes_over(given, sampler)]


def _takes_over(given, sampler):
    try:
        sampler_schedule(given, sampler)
    except UserError:
        return False
    return True


def _kind_of(given):
    return given.get("_class_name", scheduler_class(DEFAULT_SAMPLER))


def _sampler_of(config, folder):
    kind = _kind_of(config)
    alike = [sampler for sampler, reference in REFERENCES.items() if reference.kind == kind]
    if not alike:
        raise UserError(f"{folder}: _class_name = {kind!r} is not supported")
    faults = {sampler: _not_allowed(config, sampler) for sampler in alike}
    nearest = min(reversed(alike), key=lambda sampler: len(faults[sampler]))
    if faults[nearest]:
        field, value = next(iter(faults[nearest].items()))
        known = {repr(value) for sampler in alike for value in REFERENCES[sampler].fixed.get(field, ())}
        raise UserError(f"{folder}: {field} = {value!r} is not supported, use {' or '.join(sorted(known))}")
    return nearest


def sampler_schedule(given, sampler):
    """-> (schedule, keywords) for a sampler of minild.diffusion.SAMPLERS, in a folder that states `given`.

    As the reference's from_config of that sampler's class: it takes over the fields that any class's file states, and
    its own defaults for the rest. UserError where it does not support one of them, and where it is a diffusion's and
    the folder holds a rectified flow, or the other way round.
    """
    require_kind(given, sampler)
    fields = _fields(given, sampler)
    reference = REFERENCES[sampler]
    require_supported(fields, f"sampler {sampler}", sampler)
    schedule = FlowSchedule if sampler in FLOW_SAMPLERS else NoiseSchedule
    return schedule(fields, given), {name: fields[name] for name in reference.settings}


def require_kind(given, sampler):
    """UserError unless the sampler solves what the model of such a folder was trained for."""
    kind = _kind_of(given)
    if kind == FLOW_CLASS and sampler not in FLOW_SAMPLERS:
        raise UserError(f"sampler {sampler}: the model is a rectified flow ({kind}): use {DEFAULT_FLOW_SAMPLER}")
    if kind != FLOW_CLASS and sampler in FLOW_SAMPLERS:
        told = f"the model is no rectified flow but a diffusion ({kind})"
        raise UserError(f"sampler {sampler}: {told}: use {DEFAULT_SAMPLER}, for example")


def default_sampler(schedule):
    """The sampler that a new pipeline of this schedule is given."""
    if _kind_of(schedule.given) == FLOW_CLASS:
        return DEFAULT_FLOW_SAMPLER
    return VARIANCE_SAMPLER if schedule.given.get("variance_type") in LEARNED else DEFAULT_SAMPLER


def _fields(given, sampler):
    fixed = REFERENCES[sampler].fixed
    named = {field: fixed[field][0] for field in _not_allowed(given, sampler)}
    # As the reference's pipelines have it, whatever an old file says: Stable Diffusion was never meant otherwise.
    offset = {} if sampler in FLOW_SAMPLERS else {"steps_offset": 1}
    return _taken_over(given, sampler) | named | offset


def _not_allowed(given, sampler):
    """{field: value} of what a folder states, or its class has by default, that goes against the sampler's name."""
    fields = _taken_over(given, sampler)
    return {field: fields[field] for field, values in REFERENCES[sampler].fixed.items() if fields[field] not in values}


def _taken_over(given, sampler):
    """The fields of the sampler's class as from_config has them."""
    reference = REFERENCES[sampler]
    stated = {k: v for k, v in given.items() if k in reference.fields}
    for kind in (_kind_of(given), reference.kind):  # the folder's own class has it first
        taken_for = TAKEN_FOR.get(kind, {})
        for field in stated.keys() & {"solver_type", "algorithm_type"}:
            stated[field] = taken_for.get(stated[field], stated[field])
    return reference.fields | stated


def scheduler_class(sampler):
    """The reference's class for one of our samplers."""
    return REFERENCES[sampler].kind


def write_scheduler(folder, schedule, sampler):
    """Write scheduler_config.json, and return the name of its class: the reference's then samples as ours does.

    What a file did not state is not stated here either, so that other samplers still choose their own. Without a
    sampler, as where the file's own is not supported, what the file stated is written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sampler is None:
        pretrained.write_json(folder / "scheduler_config.json", schedule.given)
        return _kind_of(schedule.given)
    defaults = REFERENCES[sampler].fields
    fields = _fields(schedule.given, sampler)
    stated = {k: v for k, v in fields.items() if k in schedule.given or v != defaults[k]}
    config = {"_class_name": scheduler_class(sampler), **stated}
    if sampler not in FLOW_SAMPLERS:
        config["clip_sample"] = False
    if schedule.given.get("variance_type") in LEARNED:  # why the U-Net has more channels, whether it is used or not
        config["variance_type"] = schedule.given["variance_type"]
    pretrained.write_json(folder / "scheduler_config.json", config)
    return config["_class_name"]
