"""The forward process under a slider, as in figure 6.1: the latents of a picture, noised to each timestep."""

import numpy as np

from minild import data, pipelines
from minild.data.pictures import gather, to_signed
from minild.diffusion import add_noise
from moving.frame import Page, as_bytes, png, tiled

TIMES = [*range(0, 1000, 20), 999]
STILL = [0, 100, 200, 300, 460, 600, 800, 999]
SPREAD = 3.0  # of a latent: from -SPREAD, black, to SPREAD, white


def noised():
    """z_t at each of TIMES, (N, h, w, c), the pictures that the decoder makes of them, and the schedule's ᾱ there."""
    pipe = pipelines.load("shapes")
    pictures, _ = gather(data.load("shapes", "test"), 64)  # as the chapter does
    z = pipe.vae.encode(to_signed(pictures)[1:2]).mean * pipe.vae.config["scaling_factor"]
    noise = np.random.default_rng(0).standard_normal(z.shape, np.float32)
    times = np.array(TIMES)
    mixed = add_noise(z, noise, *pipe.schedule.noise_levels(times))
    return mixed, pipe.decode(mixed), pipe.schedule.alphas_cumprod[times]


def channels(latent):
    """The four channels of a latent (h, w, 4), two by two, as grey (2h, 2w) uint8."""
    first, second, third, fourth = np.moveaxis(latent, 2, 0)
    return as_bytes(np.block([[first, second], [third, fourth]]), -SPREAD, SPREAD)


def page():
    latents, pictures, bars = noised()
    frames = [
        {"t": t, "bar": float(f"{bar:.5g}"), "picture": png(as_bytes(picture)), "latents": png(channels(latent))}
        for t, bar, picture, latent in zip(TIMES, bars, pictures, latents)
    ]
    return Page(
        title="More and more noise",
        figure="6.1",
        about="Latents are mixed with noise, a little more at every timestep t. Move the slider, and look how long you "
        "can tell what the picture shows.",
        still=tiled([as_bytes(pictures[TIMES.index(t)]) for t in STILL], 4),
        alt="Eight pictures. In the first there is a green triangle above a blue circle. More and more coloured noise "
        "covers them; in the fourth both can still be seen, in the last two there is only noise.",
        caption=f"The picture at t = {', '.join(map(str, STILL))}.",
        data={"frames": frames},
    )
