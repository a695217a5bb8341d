"""Editing: a picture is taken back to the noise that draws it, and drawn from there with its caption changed."""

from minild.pipelines.conditions import encode, usable_pictures
from minild.pipelines.drawing import draw_pictures, sample_latents
from minild.pipelines.request import requested


def invert(pipe, images, prompts, steps=50, progress=False):
    """The noise from which DDIM draws a picture, without guidance, by its own caption -> (N, h, w, c) on the host.

    images    (N, H, W, 3), or one (H, W, 3), uint8 or in [0, 1], sides of multiples of f
    prompts   what they show, a text or a list of N

    (Song et al. 2020, arXiv 2010.02502, section 4.3.) Nearer, the more steps. UserError for what cannot be used.
    """
    pipe.require_way("invert", pipe.kinds == ("text",))
    latents = encode(pipe.vae, 2 * usable_pictures(images, factor=pipe.vae.downsampling) - 1)
    request = requested(pipe, prompts, "", steps, 1, "ddim-inverse", latents=latents)
    return sample_latents(pipe, request, progress)


def edit(pipe, images, source, target, steps=50, guidance_scale=2.0, progress=False):
    """Change what a picture shows by changing its caption -> (N, H, W, 3) float32 in [0, 1].

    images          (N, H, W, 3), or one (H, W, 3), uint8 or in [0, 1], sides of multiples of f
    source, target  what they show, and are to show: texts, or lists of N
    guidance_scale  towards the target; less than a model's own, for guidance leads away from what was there, too

    `invert` by the source, and DDIM from there by the target: what both captions say alike mostly stays as it is.
    UserError for what cannot be used.
    """
    pictures = usable_pictures(images, factor=pipe.vae.downsampling)
    noise = invert(pipe, pictures, source, steps, progress)
    request = requested(pipe, target, "", steps, guidance_scale, "ddim", latents=noise)
    return draw_pictures(pipe, request, progress)
