"""A word under the pointer and where the picture looks at it, or a place and at what it looks, as in figure 4.6."""

import numpy as np

from minild import pipelines
from minild.diffusion import SAMPLERS
from minild.nn.watching import watch_layers
from minild.random import image_generators, standard_normal
from moving.frame import Page, as_bytes, png, tiled

CAPTION = "a red circle above a blue square on a white background"
GRID = 4  # places along one side of the U-Net's cross-attention
BLUE = (8, 48, 107)  # of the largest weight of all; white is 0


def attention():
    """The picture (H, W, 3) in [0, 1]; its tokens; the weight of each at each place, (GRID, GRID, tokens).

    It is drawn as in the chapter, without guidance. The weights are means over all heads, layers and steps.
    """
    pipe = pipelines.load("shapes")
    context, noise = pipe.encode_prompts([CAPTION]), standard_normal(image_generators(0, 1), (8, 8, 4))
    seen = []  # (places, tokens) each

    def predict(latents, t):
        return pipe.unet(latents, np.full(1, t, np.float32), context)

    def see(place, weights):
        seen.append(weights.mean(axis=1)[0])  # over the heads

    with watch_layers(pipe.unet, see, wants=lambda place: place.cross):
        *_, last = SAMPLERS["ddim"](predict, noise, pipe.schedule, 20)
    weights = np.mean(seen, axis=0).reshape(GRID, GRID, -1)
    words = [token.removesuffix("</w>") for token in pipe.tokenizer.tokens(CAPTION)]
    tokens = ["BOS", *words, "EOS", "padding"]
    several = len(tokens) - 1  # where the padding begins
    weights = np.concatenate([weights[..., :several], weights[..., several:].sum(axis=2, keepdims=True)], axis=2)
    return pipe.decode(last)[0], tokens, weights


def page():
    picture, tokens, weights = attention()
    side = len(picture) // GRID
    maps = np.moveaxis(weights, 2, 0).repeat(side, axis=1).repeat(side, axis=2) / weights.max()
    blues = as_bytes(255 + maps[..., None] * (np.array(BLUE) - 255.0), high=255)
    return Page(
        title="Which words does a place look at?",
        figure="4.6",
        about="The shapes model drew this picture from the caption below it. At every step, each of 4 × 4 places gave "
        "a weight to each token of the caption. Point at a token to see which places looked at it, or at a place of "
        "the picture to see which tokens it looked at.",
        still=tiled([as_bytes(picture), *blues], 5),
        alt="A drawn picture, a red circle above a blue square, and a blue map of 4 by 4 places for each token of its "
        "caption. Those of red and circle are darkest above, those of blue and square below.",
        caption=f"The picture, and a map for each token, in this order: {', '.join(tokens)}. The darker a place, the "
        "more it looked at the token. All maps have one scale.",
        data={"picture": png(as_bytes(picture)), "tokens": tokens, "blue": BLUE,
              "weights": weights.reshape(-1, len(tokens)).astype(float).round(4).tolist()},
    )  # fmt: skip
