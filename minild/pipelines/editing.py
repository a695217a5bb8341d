"""Editing: a picture is taken back to the noise that draws it, and drawn from there with its caption changed."""

import numpy as np

from minild.errors import UserError
from minild.pipelines.conditions import encode, usable_pictures
from minild.pipelines.drawing import draw_pictures, sample_latents
from minild.pipelines.local_blend import local_blend
from minild.pipelines.prompt_to_prompt import prompt_to_prompt
from minild.pipelines.request import one_a_picture, requested
from minild.pipelines.watching import Watcher, watch_drawings

CROSS_REPLACE_STEPS, SELF_REPLACE_STEPS = 0.8, 0.4  # of prompt-to-prompt, where only one is given


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


def edit(pipe, images, source, target, steps=50, guidance_scale=2.0, progress=False, cross_replace_steps=None,
         self_replace_steps=None, weights=None, blend=False):
    """Change what a picture shows by changing its caption -> (N, H, W, 3) float32 in [0, 1].

    images          (N, H, W, 3), or one (H, W, 3), uint8 or in [0, 1], sides of multiples of f
    source, target  what they show, and are to show: texts, or lists of N
    guidance_scale  towards the target; less than a model's own, for guidance leads away from what was there, too

    `invert` by the source, and DDIM from there by the target: what both captions say alike mostly stays as it is.
    Things stay in their places, too, where the attention is carried over (prompt_to_prompt.py). Any of these does that:

    cross_replace_steps, self_replace_steps
             the share of the steps, the first, in which the target attends to its words, and to its own places, as the
             source does: 0 to 1, 0.8 and 0.4 where only the other is given
    weights  {word of the target: factor}: more of a word, or less
    blend    change only the places that look at the changed words (local_blend.py)

    The source is then drawn beside the target, without guidance: it is the picture again. UserError for what cannot be
    used.
    """
    pictures = usable_pictures(images, factor=pipe.vae.downsampling)
    if cross_replace_steps is self_replace_steps is None and not weights and not blend:
        noise = invert(pipe, pictures, source, steps, progress)
        request = requested(pipe, target, "", steps, guidance_scale, "ddim", latents=noise)
        return draw_pictures(pipe, request, progress)
    pipe.require_way("edit", pipe.kinds == ("text",))
    sources, targets = (one_a_picture(texts, latents=pictures)[0] for texts in (source, target))
    shares = usual_shares(cross_replace_steps, self_replace_steps)
    carried = Carried(pipe.tokenizer, sources, targets, *shares, weights, blend)
    noise = invert(pipe, pictures, sources, steps, progress)
    # A row that is guided away from its own caption is not guided at all.
    prompts, away = in_turns(sources, targets), in_turns(sources, [""] * len(sources))
    request = requested(pipe, prompts, away, steps, guidance_scale, "ddim", latents=np.repeat(noise, 2, axis=0))
    return carried.draw(pipe, request, progress)[1]


def draw_edited(pipe, source, target, negative_prompt="", steps=50, guidance_scale=None, sampler=None, seed=0,
                size=None, progress=False, cross_replace_steps=None, self_replace_steps=None, weights=None,
                blend=False):
    """Draw the source, and the target with its attention -> two arrays (N, H, W, 3) float32 in [0, 1].

    No picture is needed: both are drawn from the same noise (prompt-to-prompt, arXiv 2208.01626, section 4).

    source, target  texts, or lists of N

    The first is the picture that text_to_image draws of the source, but for rounding. The last four arguments are those
    of `edit`, the others those of text_to_image. UserError for what cannot be used.
    """
    pipe.require_way("draw_edited", pipe.kinds == ("text",))
    several = [texts for texts in (source, target) if not isinstance(texts, str)]
    if len({len(texts) for texts in several} - {1}) > 1:
        raise UserError(f"{len(source)} sources do not go with {len(target)} targets: give one, or as many")
    count = max((len(texts) for texts in several), default=1)
    seeds = list(seed) if np.ndim(seed) else [seed + i for i in range(count)]
    sources, targets, away = (one_a_picture(texts, seed=seeds)[0] for texts in (source, target, negative_prompt))
    shares = usual_shares(cross_replace_steps, self_replace_steps)
    carried = Carried(pipe.tokenizer, sources, targets, *shares, weights, blend)
    prompts, away, seeds = (in_turns(*both) for both in ((sources, targets), (away, away), (seeds, seeds)))
    request = requested(pipe, prompts, away, steps, guidance_scale, sampler, seeds, size=size)
    return carried.draw(pipe, request, progress)


def usual_shares(cross, own):
    """The shares of the steps of cross- and self-attention, None for the usual ones."""
    return CROSS_REPLACE_STEPS if cross is None else cross, SELF_REPLACE_STEPS if own is None else own


def in_turns(first, second):
    """Two lists of N -> the list of 2N with their items in turns."""
    return [item for both in zip(first, second, strict=True) for item in both]


class Carried(Watcher):
    """Prompt-to-prompt of N pairs, each a source and then its target, drawn two at a time."""

    def __init__(self, tokenizer, sources, targets, cross_replace_steps, self_replace_steps, weights, blend):
        pairs, shares = list(zip(sources, targets, strict=True)), (cross_replace_steps, self_replace_steps)
        self.controls = [prompt_to_prompt(tokenizer, *pair, None, weights, *shares) for pair in pairs]
        self.blends = [local_blend(tokenizer, *pair, weights) for pair in pairs] if blend else []

    def wants(self, place):
        """What one of the pairs wants: all want the same."""
        return any(watcher.wants(place) for watcher in (*self.controls[:1], *self.blends[:1]))

    def see(self, place, weights, now):
        """What the target of a pair takes over; its blend is shown what that leaves."""
        pair, given = now.pictures[0] // 2, None
        if self.controls[pair].wants(place):
            given = self.controls[pair].see(place, weights, now)
        if self.blends and self.blends[pair].wants(place):
            self.blends[pair].see(place, weights if given is None else given, now)
        return given

    def draw(self, pipe, request, progress):
        """-> the pictures of the sources and those of the targets, (N, H, W, 3) each, of a Request of both in turns."""

        def mixing(rows, noise):
            return self.blends[rows.start // 2].mix

        with watch_drawings(pipe.unet, self):
            drawn = draw_pictures(pipe, request, progress, mixing if self.blends else None, at_once=2)
        return drawn[0::2], drawn[1::2]
