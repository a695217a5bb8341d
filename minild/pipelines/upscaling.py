"""Upscaling: a picture drawn anew with f times the pixels a side, led by the picture itself (paper, section 4.4)."""

import numpy as np

from minild.errors import UserError
from minild.models import Condition
from minild.pipelines.conditions import nothing_like, usable_pictures
from minild.pipelines.drawing import draw_pictures
from minild.pipelines.low_resolution import augmented, picture_noise, usable_level
from minild.pipelines.request import one_a_picture, requested
from minild.pipelines.tiling import TILE, joined_tiles, tile_places
from minild.random import image_generators, standard_normal

SHARED = 4  # a tile's side is so many times the overlap with the next


def upscale(pipe, images, prompts="", noise_level=None, negative_prompt="", steps=50, guidance_scale=None, sampler=None,
            seed=0, progress=False, guidance_rescale=0.0):
    """Draw each picture with f times as many pixels a side -> (N, f · H, f · W, 3) float32 in [0, 1].

    images       (N, H, W, 3), or one (H, W, 3) for all of N seeds, uint8 or in [0, 1], of any size
    prompts      what they show, where text leads the model, too; "" for nothing in particular
    noise_level  how noisy they are made first: more, and more is mended and made up; None for the usual one

    A picture of more positions than the U-Net was trained on is drawn in tiles of that size. They begin with noise that
    is theirs of one whole, and fade into each other; samplers without noise in their steps leave the least seams.

    The other arguments are those of Pipeline.text_to_image. UserError for whatever cannot be used.
    """
    pipe.require_way("upscale", pipe.kinds[-1] == "low resolution")
    if "text" not in pipe.kinds and (prompts or negative_prompt):
        raise UserError(f"the model takes no prompt: what leads it is {'+'.join(pipe.kinds)}")
    level, pictures = usable_level(pipe, noise_level), usable_pictures(images)
    size, f, width = pictures.shape[1:3], pipe.vae.downsampling, pipe.vae.latent_width(pipe.vae.config)
    if np.ndim(seed) and len(pictures) == 1:
        pictures = np.repeat(pictures, max(1, len(seed)), axis=0)
    prompts, negatives, seeds = one_a_picture(prompts, negative_prompt, seed, pictures, "prompts")
    tile = tuple(min(side, own) for side, own in zip(size, tile_size(pipe)))
    places, overlap = tile_places(size, tile, min(tile) // SHARED), max(1, min(tile) // SHARED)
    noise = standard_normal([image_generators(each, 1)[0] for each in seeds], (*size, width))
    parts = 2 * pictures - 1, noise, picture_noise(seeds, (*size, 3))
    # All tiles of the first place, of all pictures, then those of the second.
    channels, latents, added = (np.concatenate([part[:, rows, columns] for rows, columns in places]) for part in parts)
    prompts, negatives, seeds = (several * len(places) for several in (prompts, negatives, seeds))
    condition = Condition(channels=channels)
    settings = steps, guidance_scale, sampler, seeds, latents, None, 0, guidance_rescale
    nothing = nothing_like(pipe, condition)
    request = requested(pipe, prompts, negatives, *settings, given=condition, nothing=nothing)
    drawn = draw_pictures(pipe, augmented(pipe, request, level, added), progress)
    return joined_tiles(np.split(drawn, len(places)), places, size, overlap, f).clip(0, 1)


def tile_size(pipe):
    """(h, w): how many positions of a picture are drawn at once, as many as the U-Net was trained on."""
    if pipe.default_size is None:
        return TILE, TILE
    return tuple(side // pipe.vae.downsampling for side in pipe.default_size)
