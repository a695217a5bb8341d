"""scheduler_config.json <-> the noise schedule, and the sampler that a folder asks for."""

from minild import pretrained
from minild.diffusion import NoiseSchedule
from minild.errors import UserError

DEFAULT_SAMPLER = "ddim"
SAMPLER_OF_CLASS = {"DDIMScheduler": "ddim", "DDPMScheduler": "ddpm"}

# What the reference's classes take for a field that a file lacks. Its pipelines set steps_offset 1 and clip_sample
# false whatever an old file says, for Stable Diffusion was never meant otherwise.
ABSENT = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
ONLY = {"trained_betas": None, "thresholding": False, "rescale_betas_zero_snr": False}


def read_scheduler(folder):
    """-> (NoiseSchedule, name of the sampler) of the scheduler folder. UserError for what is not supported."""
    config = pretrained.read_json(folder / "scheduler_config.json")
    for field, value in ONLY.items():
        if config.get(field, value) != value:
            raise UserError(f"{folder}: {field} = {config[field]!r} is not supported, use {value!r}")
    kind = config.get("_class_name")
    defaults = {**ABSENT, "set_alpha_to_one": kind == "DDIMScheduler"}
    schedule = NoiseSchedule({**defaults, **config, "steps_offset": 1})
    return schedule, SAMPLER_OF_CLASS.get(kind, DEFAULT_SAMPLER)


def scheduler_class(sampler):
    """The reference's class for one of our samplers."""
    return next(kind for kind, name in SAMPLER_OF_CLASS.items() if name == sampler)


def write_scheduler(folder, schedule, sampler):
    """Write scheduler_config.json: the reference's class of that name then samples as minild.diffusion does."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = scheduler_class(sampler)
    config = {"_class_name": kind, **schedule.config, "clip_sample": False}
    if kind == "DDPMScheduler":
        del config["set_alpha_to_one"]  # DDPM always ends at ᾱ = 1 and has no such field
    pretrained.write_json(folder / "scheduler_config.json", config)
