"""A ControlNet leads a drawing by pictures, outlines say, beside the prompt (models.controlnet)."""

import math
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from minild.errors import UserError
from minild.models import ControlNetModel
from minild.pipelines.conditions import usable_pictures

SHARED = ("block_out_channels", "down_block_types", "layers_per_block", "cross_attention_dim")
FILE = "config.json"


class Control(NamedTuple):
    """A ControlNet, and how strongly it leads; in the order in which models.Conditioned takes them."""

    controlnet: Any  # a ControlNetModel, where the pipeline computes and in what
    scale: float


def open_controlnet(pipe, folder):
    """The ControlNetModel in a folder, for a pipeline. UserError, in one line, where it is none, or another model's."""
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} is no ControlNet: name a folder with its {FILE}, as `train controlnet` writes it")
    controlnet = ControlNetModel.from_pretrained(folder, str(pipe.dtype), pipe.device)
    _require_fit(pipe, controlnet, folder)
    return controlnet


def control_lead(pipe, controlnet, pictures, scale=1.0):
    """-> (pictures to follow, (N, H, W, 3) float32 in [0, 1]; Control); (None, None) where there are neither.

    controlnet: a ControlNetModel, or the folder of one. pictures: (N, H, W, 3), or (H, W, 3) for all, uint8 or in
    [0, 1], sides of multiples of f. UserError for what is missing, cannot be used or does not fit the pipeline.
    """
    if controlnet is None and pictures is None:
        return None, None
    if controlnet is None:
        raise UserError("a picture to follow needs a ControlNet: name the folder of one (controlnet)")
    if pictures is None:
        raise UserError("a ControlNet needs a picture to follow (control)")
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise UserError(f"control scale must be a finite number, got {scale!r}")
    if isinstance(controlnet, ControlNetModel):
        _require_fit(pipe, controlnet, "the ControlNet")
    else:
        controlnet = open_controlnet(pipe, controlnet)
    return usable_pictures(pictures, factor=pipe.vae.downsampling, name="control"), Control(controlnet, scale)


def _require_fit(pipe, controlnet, name):
    """UserError unless a ControlNet's residuals can be added to the U-Net's features."""
    its, ours = controlnet.config, pipe.unet.config
    pairs = [(field, its[field], ours[field]) for field in SHARED]
    pairs += [("in_channels", its["in_channels"], pipe.vae.latent_width(pipe.vae.config))]
    pairs += [("f", controlnet.f, pipe.vae.downsampling), ("conditioning_channels", its["conditioning_channels"], 3)]
    for field, found, expected in pairs:
        found, expected = (list(x) if isinstance(x, tuple) else x for x in (found, expected))
        if found != expected:
            raise UserError(f"{name} is of another model: its {field} is {found}, not {expected}")
    if controlnet.class_embedding:
        raise UserError(f"{name} is of another model: it takes class labels")
