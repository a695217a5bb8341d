"""Inpainting and outpainting: a part of a picture is drawn anew, and the rest comes back bit for bit."""

import math
from numbers import Integral

import numpy as np

from minild.backend import device_of, to_device
from minild.diffusion import NOISE, Start
from minild.errors import UserError
from minild.pipelines.conditions import encode, given, nothing_like, usable_masks, usable_pictures
from minild.pipelines.control import control_lead
from minild.pipelines.drawing import draw_pictures
from minild.pipelines.image_to_image import skipped
from minild.pipelines.request import NOTHING, requested

WAYS = (("text",), ("text", "masked"))  # what leads the models that can


def inpaint(pipe, images, masks, prompts="", strength=1.0, negative_prompt="", steps=50, guidance_scale=None,
            sampler=None, seed=0, latents=None, progress=False, clip_skip=0, guidance_rescale=0.0, controlnet=None,
            control=None, control_scale=1.0):
    """Draw the masked part of a picture anew, as each prompt says -> (N, H, W, 3) float32 in [0, 1].

    images    (N, H, W, 3), or (H, W, 3) for all, uint8 or in [0, 1], sides of multiples of f
    masks     (N, H, W), or (H, W) for all: true, or above 1/2, where to draw. Some of it, or all
    strength  as in image_to_image; at 1 the masked part begins as noise alone

    A model made for it is told the mask and the rest of the picture (Stable Diffusion's of nine channels; minild trains
    one with --condition text+masked). Any other draws a whole picture, into which each step puts the rest, as noisy as
    it is itself (Avrahami et al. 2022, arXiv 2206.02779, section 3.4). Pixels outside the mask are those of `images`.

    The other arguments are those of Pipeline.text_to_image. UserError for whatever cannot be used.
    """
    pipe.require_way("inpaint", pipe.kinds in WAYS)
    pictures = usable_pictures(images, factor=pipe.vae.downsampling)
    if np.ndim(masks) == 3 and len(pictures) == 1:
        pictures = np.repeat(pictures, len(masks), axis=0)
    masks = usable_masks(masks, pictures)
    if not masks.any(axis=(1, 2)).all():
        raise UserError("a mask is empty: make it true, or white, where to draw")
    skip, begins_late, made_for_it = skipped(strength, steps), strength < 1, "masked" in pipe.kinds
    clean = encode(pipe.vae, 2 * pictures - 1) if begins_late or not made_for_it else None
    control, lead = control_lead(pipe, controlnet, control, control_scale)
    condition = given(pipe, images=pictures, masks=masks)[0] if made_for_it else NOTHING
    condition = condition._replace(control=control)
    mixing = None if made_for_it else _around(clean, masks, pipe.vae.downsampling)
    start = Start(clean, skip) if begins_late else NOISE
    if isinstance(prompts, str):
        prompts = [prompts] * len(pictures)
    settings = steps, guidance_scale, sampler, seed, latents, pictures.shape[1:3] if latents is None else None
    leads = {"given": condition, "nothing": nothing_like(pipe, condition), "control": lead, "start": start}
    request = requested(pipe, prompts, negative_prompt, *settings, clip_skip, guidance_rescale, **leads)
    if len(pictures) not in (1, count := len(request.prompts)):
        raise UserError(f"{len(pictures)} images do not go with {count} prompts: give one, or as many")
    drawn = draw_pictures(pipe, request, progress, mixing)
    return np.where(masks[..., None], drawn, pictures)


def _around(clean, masks, f):
    """draw_pictures' `mixing`: outside the mask, latents (N, h, w, c), or of one picture for all, with noise added.

    A position of the latents is drawn where any of its f x f pixels is.
    """
    N, H, W = masks.shape
    drawn = masks.reshape(N, H // f, f, W // f, f).any(axis=(2, 4))[..., None]

    def mixing(rows, noise):
        inside, z_0 = (x if N == 1 else x[rows] for x in (drawn, clean))

        def mix(z, alpha_bar):
            there = math.sqrt(alpha_bar) * z_0 + math.sqrt(1 - alpha_bar) * noise
            keep, there = (to_device(x.astype(z.dtype), device_of(z)) for x in (inside, there))
            return keep * z + (1 - keep) * there

        return mix

    return mixing


def outpaint(pipe, images, margins, prompts="", **settings):
    """Draw a picture further than its edges -> (N, H, W, 3) float32 in [0, 1]; the picture itself is as it was.

    margins   pixels to add at the (top, right, bottom, left); the sides of the whole are multiples of f
    settings  those of inpaint
    """
    margins = list(margins)
    if len(margins) != 4 or not all(isinstance(side, Integral) and side >= 0 for side in margins) or not any(margins):
        raise UserError(f"margins: expected pixels at the top, right, bottom and left, some above 0, got {margins}")
    pictures, (top, right, bottom, left) = usable_pictures(images), margins
    canvas = np.pad(pictures, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
    outside = np.ones(canvas.shape[1:3], bool)
    outside[top : top + pictures.shape[1], left : left + pictures.shape[2]] = False
    return inpaint(pipe, canvas, outside, prompts, **settings)
