"""Noise augmentation: a low-resolution picture that leads is made noisy, and the U-Net is told how noisy it is.

A model of super-resolution so learns to mend a picture, not only to enlarge it, and at a high level to add details of
its own (Ho et al. 2021, arXiv 2106.15282, section 4.2; the paper's section 4.4 degrades its pictures to the same end).
The fields and the folder are those of the reference's StableDiffusionUpscalePipeline: `low_res_scheduler` says how much
noise a level is, `max_noise_level` is the highest, and the level is the U-Net's class label.
"""

from numbers import Integral
from typing import NamedTuple

import numpy as np

from minild.diffusion import NoiseSchedule, add_noise
from minild.errors import UserError
from minild.pipelines.scheduler_config import open_scheduler, write_scheduler
from minild.random import standard_normal

PART, HIGHEST = "low_res_scheduler", "max_noise_level"  # of a pipeline's index
UPSCALING = "StableDiffusionUpscalePipeline"
MAX_NOISE_LEVEL, USUAL_LEVEL = 350, 20  # the reference's own
SCHEDULE = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "squaredcos_cap_v2"}


class Augmentation(NamedTuple):
    """Which noise is added: level t is the timestep t of the schedule, 0 to `highest`."""

    schedule: NoiseSchedule
    highest: int

    def add(self, pictures, noise, levels):
        """Pictures and noise (N, h, w, 3), whole numbers (N,) -> the noisy pictures, float32 on the host."""
        return add_noise(pictures, noise, *self.schedule.noise_levels(levels)).astype(np.float32)


def usual_augmentation():
    """The Augmentation that minild trains with."""
    return Augmentation(NoiseSchedule(SCHEDULE), MAX_NOISE_LEVEL)


def augmented(pipe, request, level=None, noise=None):
    """A Request led by low-resolution pictures -> one led by noisy ones. Any other is given back.

    level   0 to the model's highest; None for the usual one
    noise   (N, h, w, 3) on the host; None for that of the seeds

    UserError for a level that there is not.
    """
    level = usable_level(pipe, level)
    if level is None:
        return request
    clean, levels = request.given.channels, np.full(len(request.prompts), level)
    noise = picture_noise(request.seeds, clean.shape[1:]) if noise is None else noise
    noisy = pipe.augmentation.add(clean, noise, levels)
    away = noisy if "text" in pipe.kinds else request.nothing.channels
    return request._replace(
        given=request.given._replace(channels=noisy, class_labels=levels),
        nothing=request.nothing._replace(channels=away, class_labels=levels),
    )


def picture_noise(seeds, shape):
    """The noise of the pictures that lead, (N, h, w, 3): another than that of the latents of the same seed."""
    return standard_normal([np.random.default_rng((seed, 1)) for seed in seeds], shape)


def usable_level(pipe, level):
    """A noise level, or the usual one of None; None of a model that knows none. UserError for any other."""
    if pipe.augmentation is None:
        if level is not None:
            raise UserError("the model is told no noise level: leave it out")
        return None
    highest = pipe.augmentation.highest
    if level is None:
        return min(USUAL_LEVEL, highest)
    if not isinstance(level, Integral) or not 0 <= level <= highest:
        raise UserError(f"noise level must be a whole number from 0 to {highest}, got {level!r}")
    return int(level)


def read_augmentation(folder, index):
    """-> the Augmentation of a pipeline's folder, None where no level is told. UserError for a broken one."""
    if not is_upscaler(index):
        return None
    kind, highest = index[PART][1], index.get(HIGHEST, MAX_NOISE_LEVEL)
    scheduler = open_scheduler(folder / PART, kind)
    if not isinstance(scheduler.schedule, NoiseSchedule):
        raise UserError(f"{folder / PART}: {scheduler.refusal or f'{kind} adds no noise'}")
    if type(highest) is not int or not 0 <= highest < scheduler.schedule.train_steps:
        most = scheduler.schedule.train_steps - 1
        raise UserError(f"{HIGHEST}: expected a whole number from 0 to {most}, got {highest!r}")
    return Augmentation(scheduler.schedule, highest)


def write_augmentation(folder, augmentation):
    """Write the schedule -> what the index says of it, a dict; {} for None."""
    if augmentation is None:
        return {}
    kind = write_scheduler(folder / PART, augmentation.schedule, "ddpm")
    return {PART: ["diffusers", kind], HIGHEST: augmentation.highest}


def is_upscaler(index):
    """Whether an index names a part that makes low-resolution pictures noisy."""
    entry = index.get(PART)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def misfit(augmentation, unet, kinds):
    """What keeps a U-Net's config from being told the levels, in words; None if nothing does."""
    labels, embedding = unet["num_class_embeds"], unet["class_embed_type"]
    if augmentation is None:
        return None
    if "low resolution" not in kinds:
        return f"{PART} is there, and no low-resolution picture leads the model"
    if embedding == "timestep" or (embedding is None and labels and labels > augmentation.highest):
        return None
    return f"unet num_class_embeds is {labels}, {HIGHEST} {augmentation.highest}"
