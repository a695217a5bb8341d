"""The pictures between seeds: noise turned from each to the next, and a picture drawn of every step of the way."""

import itertools

import numpy as np

from minild.errors import UserError
from minild.pipelines.request import latent_shape, one_a_picture
from minild.random import image_generators, slerp, standard_normal


def interpolate(pipe, prompt, seeds, frames=12, size=None, **settings):
    """Draw one prompt for the noise of each seed and for that between -> ((seeds - 1) (frames - 1) + 1, H, W, 3).

    seeds     two, or more; of each the picture is that of text_to_image
    frames    pictures from one seed to the next, both counted
    settings  those of Pipeline.text_to_image, but for `seed` and `latents`

    A sampler that draws noise at its steps gives every picture its own: use another for pictures that flow. UserError
    for whatever cannot be used.
    """
    seeds = one_a_picture([prompt], seed=list(np.atleast_1d(seeds)))[2]
    if len(seeds) < 2:
        raise UserError(f"{len(seeds)} seed: give two, or more, to draw what is between them")
    if frames < 2:
        raise UserError(f"frames: expected 2 or more, got {frames}")
    if settings.get("sampler") == "ddim-inverse":
        raise UserError("sampler ddim-inverse begins with a picture and ends in noise: use another")
    shape = latent_shape(pipe, size)
    ends = [standard_normal(image_generators(seed, 1), shape)[0] for seed in seeds]
    ways = [[slerp(a, b, share) for share in np.linspace(0, 1, frames)] for a, b in itertools.pairwise(ends)]
    noise = np.stack([ways[0][0], *(each for way in ways for each in way[1:])])
    return pipe.text_to_image(prompt, latents=noise, **settings)
