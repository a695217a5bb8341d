"""What a page asks for: its prompt and settings, a picture to begin with, and the mask painted over it."""

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops

from minild.data.decode import LARGEST, LARGEST_FILE, fitted, open_image, read_picture
from minild.errors import UserError
from minild.pipelines.image_to_image import fitted_size
from minild.pipelines.inpainting import WAYS
from minild.pipelines.prompts import require_prompt
from minild.pipelines.scheduler_config import usable_samplers
from minild.reading import read_bytes

SHOWN = 512  # pixels: smaller pictures are scaled up for the page by a whole factor, to about that


class Asked(NamedTuple):
    """What is to be drawn."""

    prompt: str
    negative_prompt: str
    sampler: str
    steps: int
    guidance: float
    seed: int
    strength: float  # of image to image: with a picture, and no mask
    picture: Any = None  # (H, W, 3) uint8 to begin with
    mask: Any = None  # (H, W) true where to draw

    @property
    def way(self):
        """The method of the pipeline that draws it."""
        if self.picture is None:
            return "text_to_image"
        return "image_to_image" if self.mask is None else "inpaint"

    def require(self, pipe):
        """UserError for what can be told before anything is computed."""
        require_prompt(self.prompt, self.negative_prompt)
        for name in ("steps", "guidance", "seed", "strength"):
            if getattr(self, name) is None:
                raise UserError(f"{name} is empty: give a number")
        if pipe.kinds != ("text",) and self.way != "inpaint":
            raise UserError("this model fills in masks: give a picture, and paint over what is to be drawn anew")

    def draw(self, pipe):
        """-> (H, W, 3) float32 in [0, 1]. UserError for whatever cannot be used."""
        settings = {
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "guidance_scale": self.guidance,
            "sampler": self.sampler,
            "seed": self.seed,
        }
        if self.way == "text_to_image":
            return pipe.text_to_image(self.prompt, **settings)[0]
        if self.way == "image_to_image":
            return pipe.image_to_image(self.picture, self.prompt, self.strength, **settings)[0]
        return pipe.inpaint(self.picture, self.mask, self.prompt, **settings)[0]

    def told(self):
        """What a PNG says of the picture and its beginning, beside how it was drawn."""
        begun = {
            "text_to_image": {},
            "image_to_image": {"image": "playground", "strength": self.strength},
            "inpaint": {"image": "playground", "strength": 1.0, "mask": "playground"},
        }
        return {"prompt": self.prompt, "seed": self.seed}, begun[self.way] | {"negative_prompt": self.negative_prompt}


def require_playable(pipe):
    """UserError for a model that cannot draw from what the page has: words, a picture and a mask."""
    if pipe.kinds not in WAYS:
        raise UserError(f"the playground draws from words, and what leads this model is {'+'.join(pipe.kinds)}")
    if pipe.default_size is None:
        raise UserError("the playground draws pictures of the U-Net's sample_size, and its config names none")


def samplers(pipe):
    """The names of the samplers that draw from the model: all but the one that makes noise of pictures."""
    return [name for name in usable_samplers(pipe.schedule.given) if name != "ddim-inverse"]


def begun_with(pipe, background, layers):
    """-> a picture (H, W, 3) uint8 in a size for the model, and a mask (H, W) of booleans; None for what there is not.

    background   the file of the picture, or None
    layers       files as large as that, opaque where the mask was painted

    UserError for a mask without a picture, and for one that covers no pixel of the picture that will be drawn.
    """
    painted = None
    for layer in map(_opaque, layers):
        painted = layer if painted is None else ImageChops.lighter(painted, layer)
    if painted is not None and painted.getbbox() is None:
        painted = None
    if background is None:
        if painted is not None:
            raise UserError("a mask is painted over a picture: give a picture first")
        return None, None
    picture = fitting(pipe, pixels_of(background))
    if painted is None:
        return picture, None
    mask = fitted(painted.convert("RGB"), picture.shape[:2]).mean(axis=-1) > 127.5
    if not mask.any():
        raise UserError("the mask is too thin for the model's pixels: paint more")
    return picture, mask


def _opaque(path):
    """How opaque a layer is, an image of mode L. UserError for what cannot be read."""
    try:
        with open_image(io.BytesIO(read_bytes(path, LARGEST_FILE))) as layer:
            if layer.width * layer.height > LARGEST:
                raise ValueError(f"it is too large: {layer.width} x {layer.height} pixels, and {LARGEST:,} is the most")
            return layer.convert("RGBA").getchannel("A")
    except Exception as error:
        raise UserError(f"cannot read the mask: {error}") from None


def pixels_of(path):
    """The picture in a file -> (H, W, 3) uint8. UserError for what cannot be read."""
    try:
        return read_picture(path, lambda height, width: (height, width))
    except Exception as error:  # whatever its decoder raises
        raise UserError(f"cannot read the picture: {error}") from None


def fitting(pipe, whole):
    """A picture (H, W, 3) uint8, made to fit the model; what `scaled_up` made of one that fits comes back as it was."""
    height, width = fitted_size(pipe, *whole.shape[:2])
    few = whole[:: max(1, len(whole) // height), :: max(1, whole.shape[1] // width)]
    if few.shape[:2] == (height, width) and np.array_equal(_repeated(few, len(whole) // height), whole):
        return few
    return fitted(Image.fromarray(whole), (height, width))


def scaled_up(picture):
    """A small picture (H, W, 3) with each pixel as a square, so that one can paint on it."""
    return _repeated(picture, max(1, SHOWN // max(picture.shape[:2])))


def _repeated(picture, times):
    return picture.repeat(times, axis=0).repeat(times, axis=1)
