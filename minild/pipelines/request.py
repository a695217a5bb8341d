"""What a drawing is asked for, put in order. Every mistake of the user's is a UserError of one line."""

import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from minild.diffusion import NOISE, SAMPLERS, FlowSchedule, NoiseSchedule, Start
from minild.errors import UserError
from minild.models import Condition
from minild.pipelines.scheduler_config import sampler_schedule, usable_samplers

NOTHING = Condition()


class Request(NamedTuple):
    """What is drawn: N pictures, and all that decides them beside the models."""

    prompts: list  # N texts
    negative_prompts: list  # N texts
    seeds: list  # N whole numbers
    shape: tuple  # (h, w, c) of the latents
    latents: Any  # the initial noise (N, h, w, c) on the host, where it was given; else None
    steps: int
    guidance_scale: float  # 1 where less was asked for
    guidance_rescale: float
    clip_skip: int
    sampler: str
    schedule: NoiseSchedule | FlowSchedule  # as the sampler takes it over from the pipeline's
    settings: dict  # what else the sampler takes from there
    given: Condition  # what leads them beside words, on the host
    nothing: Condition  # what stands for nothing of it
    lead: Any  # a drawing.ClassifierLead; None for none
    control: Any  # a control.Control, which looks at the pictures given.control; None for none
    start: Start  # where the sampler begins, its latents (N, h, w, c) on the host


def requested(
    pipe,
    prompts,
    negative_prompt="",
    steps=50,
    guidance_scale=None,
    sampler=None,
    seed=0,
    latents=None,
    size=None,
    clip_skip=0,
    guidance_rescale=0.0,
    given=NOTHING,
    nothing=NOTHING,
    lead=None,
    start=NOISE,
    control=None,
):
    """-> the Request that Pipeline.text_to_image understands by its arguments of these names, which it describes.

    given, nothing, lead: what leads the pictures beside words, each part of N rows, or of one for all
    (pipelines.conditions).
    control: a control.Control that looks at the pictures of both conditions.
    start: a picture's latents, likewise, where drawing begins with them; they say the size.
    """
    sampler = sampler or own_sampler(pipe)
    require_sampler(sampler)
    guidance_scale = pipe.guidance_scale if guidance_scale is None else guidance_scale
    require_guidance(guidance_scale, guidance_rescale)
    require_clip_skip(clip_skip, pipe.text_encoder.config["num_hidden_layers"] if pipe.text_encoder else 0)
    schedule, settings = sampler_schedule(pipe.schedule.given, sampler)
    schedule.require_steps(steps)
    if latents is None:
        shape = latent_shape(pipe, size)
    elif size is not None:
        raise UserError("give a size or latents, not both: latents have a size of their own")
    else:
        latents = usable_latents(pipe, latents)
        shape = latents.shape[1:]
    for of_images in (given.channels, start.clean):
        if of_images is not None and of_images.shape[1:3] != shape[:2]:
            raise UserError(f"latents: {shape[:2]} positions, where the images have {of_images.shape[1:3]}")
    if given.control is not None and given.control.shape[1:3] != (drawn := sides_of(pipe, shape)):
        seen = "{} x {}".format(*given.control.shape[1:3])
        raise UserError(f"control: {seen} pixels, where {drawn[0]} x {drawn[1]} are drawn: make them alike")
    rows = [len(part) for part in (*given, lead and lead.labels, start.clean) if part is not None]
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if rows and len(prompts) == 1:
        prompts = prompts * max(rows)
    name = "prompts" if not rows else "images" if given.class_labels is None and not lead else "labels"
    prompts, negatives, seeds = one_a_picture(prompts, negative_prompt, seed, latents, name)
    for count in rows:
        if count not in (1, len(prompts)):
            raise UserError(f"{count} {name} do not go with {len(prompts)} prompts: give one, or as many")

    def for_all(part):
        """A part of what leads, a row a picture."""
        return part if part is None or len(part) == len(prompts) else part[np.zeros(len(prompts), int)]

    given, nothing = (Condition(*map(for_all, condition)) for condition in (given, nothing))
    lead, start = lead and lead._replace(labels=for_all(lead.labels)), start._replace(clean=for_all(start.clean))
    return Request(
        prompts=prompts,
        negative_prompts=negatives,
        seeds=seeds,
        shape=shape,
        latents=latents,
        steps=steps,
        guidance_scale=max(1, guidance_scale),  # the reference, too, guides only above 1
        guidance_rescale=guidance_rescale,
        clip_skip=clip_skip,
        sampler=sampler,
        schedule=schedule,
        settings=settings,
        given=given,
        nothing=nothing,
        lead=lead,
        control=control,
        start=start,
    )


def one_a_picture(prompts, negative_prompt="", seed=0, latents=None, name="prompts"):
    """-> prompts, negative prompts, seeds: three lists of N, one entry a picture.

    A text, or a list of one, serves all pictures; a number as the seed counts up from picture to picture. N is that of
    the latents; without them that of a list of seeds; without that, of the prompts. `name` says what these stand for.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    negatives = [negative_prompt] if isinstance(negative_prompt, str) else list(negative_prompt)
    require_texts([*prompts, *negatives])
    listed = np.ndim(seed) > 0
    if not prompts:
        raise UserError("no prompt: give at least one")
    if listed and not len(seed):
        raise UserError("no seed: give one for each picture, or a single number")
    if latents is not None:
        count, what = len(latents), "latents"
    else:
        count, what = (len(seed), "seeds") if listed else (len(prompts), name)
    prompts, negatives = _for_all(prompts, name, count, what), _for_all(negatives, "negative prompts", count, what)
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


def require_texts(texts):
    """UserError unless all of them are texts that can be encoded: an empty one is, and says nothing."""
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"a prompt must be a text, got {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError:  # bytes that were no UTF-8, from a command line or a file
            raise UserError(f"a prompt is not valid text: {text!r}") from None


def own_sampler(pipe):
    """The sampler of the pipeline's folder. UserError if that is not supported."""
    if pipe.sampler is None:
        raise UserError(f"the model: {pipe.refusal}; choose one of {', '.join(usable_samplers(pipe.schedule.given))}")
    return pipe.sampler


def require_sampler(sampler):
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: use one of {', '.join(SAMPLERS)}")


def require_guidance(guidance_scale, guidance_rescale):
    if not isinstance(guidance_scale, Real) or not math.isfinite(guidance_scale):
        raise UserError(f"guidance must be a finite number, got {guidance_scale!r}")
    if not isinstance(guidance_rescale, Real) or not 0 <= guidance_rescale <= 1:
        raise UserError(f"guidance rescale must be from 0 to 1, got {guidance_rescale!r}")


def require_clip_skip(clip_skip, layers):
    if not isinstance(clip_skip, Integral) or not 0 <= clip_skip <= layers:
        raise UserError(f"clip skip must be from 0 to {layers}, the text encoder's layers, got {clip_skip}")


def latent_shape(pipe, size):
    """(h, w, c) of a size in pixels, or of the pipeline's default_size."""
    size = size or pipe.default_size
    if size is None:
        raise UserError("the U-Net's config names no sample_size: give a size")
    if np.shape(size) != (2,) or not all(isinstance(side, Integral) for side in size):
        raise UserError(f"size: expected (height, width) in pixels, got {size!r}")
    f = pipe.vae.downsampling
    if any(side < 1 or side % f for side in size):
        raise UserError(f"size {size[0]} x {size[1]} is not divisible by {f}: use multiples of {f} pixels")
    return size[0] // f, size[1] // f, pipe.vae.latent_width(pipe.vae.config)


def sides_of(pipe, shape):
    """(height, width) in pixels of what is drawn from latents of that shape, (h, w, c)."""
    return tuple(side * pipe.vae.downsampling for side in shape[:2])


def usable_latents(pipe, latents):
    """Latents as a host array (N, h, w, c). UserError unless a drawing can begin with them."""
    latents, c = np.asarray(latents), pipe.vae.latent_width(pipe.vae.config)
    if latents.dtype.kind not in "fiu":
        raise UserError(f"latents: expected real numbers, got dtype {latents.dtype}")
    if latents.ndim != 4 or not latents.size or latents.shape[3] != c:
        raise UserError(f"latents: expected shape (N, h, w, {c}), got {latents.shape}")
    if not np.isfinite(latents).all():
        raise UserError("latents: some values are not finite numbers")
    return latents
