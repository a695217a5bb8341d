"""What a drawing is asked for, put in order. Every mistake of the user's is a UserError of one line."""

import math
from numbers import Integral

import numpy as np

from minild.diffusion import SAMPLERS
from minild.errors import UserError


def one_a_picture(prompts, negative_prompt="", seed=0, latents=None):
    """-> prompts, negative prompts, seeds: three lists of N, one entry a picture.

    A text, or a list of one, serves all pictures; a number as the seed counts up from picture to picture. N is that of
    the latents; without them that of a list of seeds; without that, of the prompts.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    negatives = [negative_prompt] if isinstance(negative_prompt, str) else list(negative_prompt)
    listed = np.ndim(seed) > 0
    if not prompts:
        raise UserError("no prompt: give at least one")
    if listed and not len(seed):
        raise UserError("no seed: give one for each picture, or a single number")
    if latents is not None:
        count, what = len(latents), "latents"
    else:
        count, what = (len(seed), "seeds") if listed else (len(prompts), "prompts")
    prompts, negatives = _for_all(prompts, "prompts", count, what), _for_all(negatives, "negative prompts", count, what)
    seeds = list(seed) if listed else [seed + i for i in range(count)]
    if len(seeds) != count:
        raise UserError(f"{len(seeds)} seeds do not go with {count} {what}: give as many, or a single number")
    for number in seeds:
        if not isinstance(number, Integral) or number < 0:
            raise UserError(f"seed must be a whole number from 0, got {number}")
    return prompts, negatives, seeds


def _for_all(texts, name, count, what):
    if len(texts) == 1:
        return texts * count
    if len(texts) != count:
        raise UserError(f"{len(texts)} {name} do not go with {count} {what}: give one, or as many")
    return texts


def require_sampler(sampler):
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: use one of {', '.join(SAMPLERS)}")


def require_guidance(guidance_scale, guidance_rescale):
    if not math.isfinite(guidance_scale):
        raise UserError(f"guidance must be a finite number, got {guidance_scale}")
    if not 0 <= guidance_rescale <= 1:
        raise UserError(f"guidance rescale must be from 0 to 1, got {guidance_rescale}")


def require_clip_skip(clip_skip, layers):
    if not isinstance(clip_skip, Integral) or not 0 <= clip_skip <= layers:
        raise UserError(f"clip skip must be from 0 to {layers}, the text encoder's layers, got {clip_skip}")
