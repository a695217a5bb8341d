"""Denoising as a film, as in figure 6.8: a drawing step by step, without guidance and with it."""

import numpy as np

from minild import pipelines
from minild.diffusion import SAMPLERS, guided, predict_clean
from minild.random import image_generators, standard_normal
from moving.frame import Page, as_bytes, png, tiled

CAPTION = "a red circle left of a cyan triangle on a grey background"
SEED, STEPS, SCALES = 17, 20, (1.0, 2.0)
STILL = [0, 3, 6, 9, 12, 14, 17, 20]  # numbers of steps


def drawing(pipe, scale):
    """The latents before the first step and after each, and what the U-Net thinks of them: two of (STEPS + 1, h, w, c).

    What it thinks is the guess ẑ of the clean latents; after the last step it is asked no more, and they stand there.
    """
    context, nothing = pipe.encode_prompts([CAPTION]), pipe.encode_prompts([""])
    ask, guesses = guided(pipe.unet, context, nothing, scale), []

    def predict(latents, t):
        epsilon = ask(latents, t)
        guesses.append(predict_clean(latents, epsilon, pipe.schedule.alpha_bar(t)))
        return epsilon

    start = standard_normal(image_generators(SEED, 1), (8, 8, 4))
    latents = [start, *SAMPLERS["ddim"](predict, start, pipe.schedule, STEPS)]
    return np.concatenate(latents), np.concatenate([*guesses, latents[-1]])


def page():
    pipe = pipelines.load("shapes")
    films = []
    for scale in SCALES:
        seen, guessed = (as_bytes(pipe.decode(latents)) for latents in drawing(pipe, scale))
        films.append({"scale": scale, "seen": seen, "guessed": guessed})
    shown = [film["seen"][k] for film in films for k in STILL]
    for film in films:
        film.update(seen=[png(one) for one in film["seen"]], guessed=[png(one) for one in film["guessed"]])
    return Page(
        title="A picture comes out of noise",
        figure="6.8",
        about=f"The shapes model draws “{CAPTION}” in {STEPS} steps of DDIM, twice from the same noise: with the "
        "caption alone, and with guidance.",
        still=tiled(shown, len(STILL)),
        alt="Two rows of eight pictures that begin with the same coloured noise. The upper row ends with a red circle "
        "above a cyan triangle, a little to its right; the lower row with a red circle left of a cyan triangle.",
        caption=f"The latents after {', '.join(map(str, STILL))} steps, decoded. Above: the caption alone, s = 1. "
        f"Below: with guidance, s = {SCALES[1]:g}.",
        data={"films": films, "times": pipe.schedule.timesteps(STEPS).tolist(), "caption": CAPTION},
    )
