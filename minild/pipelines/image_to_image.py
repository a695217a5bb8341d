"""Image to image: drawing begins with a given picture, noised part of the way (SDEdit, arXiv 2108.01073)."""

import math
from numbers import Real

from minild.diffusion import Start
from minild.errors import UserError
from minild.models import Condition
from minild.pipelines.conditions import encode, usable_pictures
from minild.pipelines.control import control_lead
from minild.pipelines.drawing import draw_pictures
from minild.pipelines.request import requested

LARGEST_SIDE = 2048  # pixels; beyond a multiple of its training size a model repeats itself, at a cost of side⁴


def image_to_image(pipe, images, prompts="", strength=0.8, negative_prompt="", steps=50, guidance_scale=None,
                   sampler=None, seed=0, latents=None, progress=False, clip_skip=0, guidance_rescale=0.0,
                   controlnet=None, control=None, control_scale=1.0):
    """Draw each prompt over a picture, whose colours and layout stay the more, the less the strength -> (N, H, W, 3)
    float32 in [0, 1].

    images    (N, H, W, 3), or (H, W, 3) for all, uint8 or in [0, 1], sides of multiples of f; the picture drawn is as
              large
    strength  above 0, at most 1: the share of the steps that are taken, the last ones, from the picture noised as far.
              At 1 all are taken, from hardly more than noise

    The other arguments are those of Pipeline.text_to_image. UserError for whatever cannot be used.
    """
    pipe.require_way("image_to_image", pipe.kinds == ("text",))
    skip, pictures = skipped(strength, steps), usable_pictures(images, factor=pipe.vae.downsampling)
    control, lead = control_lead(pipe, controlnet, control, control_scale)
    followed = Condition(control=control)
    start = Start(encode(pipe.vae, 2 * pictures - 1), skip)
    size = pictures.shape[1:3] if latents is None else None
    settings = steps, guidance_scale, sampler, seed, latents, size, clip_skip, guidance_rescale
    leads = {"given": followed, "nothing": followed, "control": lead, "start": start}
    return draw_pictures(pipe, requested(pipe, prompts, negative_prompt, *settings, **leads), progress)


def skipped(strength, steps):
    """How many of the steps a strength leaves out: as in the reference ⌊steps · strength⌋ are taken.

    UserError where that is none, or the strength is not in (0, 1].
    """
    if not isinstance(strength, Real) or not 0 < strength <= 1:
        raise UserError(f"strength must be above 0 and at most 1, got {strength!r}")
    taken = math.floor(steps * strength)
    if not taken:
        raise UserError(f"strength {strength:g} of {steps} steps is less than one step: use more of either")
    return steps - taken


def fitted_size(pipe, height, width):
    """The (height, width) that a picture of that size is made, to begin with: its shape, the shorter side as long as
    the model was trained on, in whole f.

    UserError where the longer side would be above LARGEST_SIDE, or the pipeline has no default_size.
    """
    if pipe.default_size is None:
        raise UserError("the U-Net's config names no sample_size, which pictures are made to fit")
    f, scale = pipe.vae.downsampling, min(pipe.default_size) / min(height, width)
    sides = tuple(max(f, round(side * scale / f) * f) for side in (height, width))
    if max(sides) > LARGEST_SIDE:
        raise UserError(f"a picture of {height} x {width} pixels is too long and thin: cut it, or give a size")
    return sides
