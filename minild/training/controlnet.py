"""A ControlNet learns to lead a pipeline by outlines; the pipeline stays as it is (Zhang et al. 2023, section 3.3)."""

from pathlib import Path

import numpy as np

from minild import pretrained
from minild.data.outlines import outlines
from minild.models import ControlNetModel
from minild.pipelines.folder import RECORD
from minild.pipelines.sheet import draw_sheet
from minild.training.conditioning import Choices, Frozen
from minild.training.latent_diffusion import Denoiser
from minild.training.tuning import SMALL, Tuned, objective_of, open_lesson, recompute, require_new_folder, tune

DROPOUT = 0.5  # of captions, as published: what they would say is then to be read from the outlines


class Outlines(Choices):
    """The outlines of pictures (N, H, W, 3) uint8, found when they are asked for; they are never left out."""

    def __init__(self, pictures):
        super().__init__("control", pictures)

    def choose(self, rng, rows, progress):
        """-> (len(rows), H, W, 3) float32, 0 or 1."""
        return outlines(self.values[rows]).astype(np.float32) / 255


class Led(Denoiser):
    """A Denoiser of which the ControlNet alone is trained: the backward stops where the way down would begin."""

    def backward(self, dy, cache):
        """dy like y. Adds into the ControlNet's gradients; -> three times None, for no input needs one."""
        (cache, seen, _), _ = cache
        dresiduals, _, _ = self.unet.up_backward(dy, cache)
        self.controlnet.backward(dresiduals, seen)
        return None, None, None


def controlnet_parameters(denoiser):
    """(name, Parameter) of what is trained."""
    yield from denoiser.controlnet.named_parameters("controlnet.")


def train_controlnet(model, dataset, output, prompt=None, recomputing=False, minutes=None, steps=None, seed=0,
                     device="cpu", size=None, batch_size=None, learning_rate=None):  # fmt: skip
    """Train a ControlNet of the pipeline `model` on the outlines of pictures, and write it to the folder `output`
    -> how many steps it took.

    learning_rate  at its peak; None: 1e-3, and 1e-5, as published, where the pictures are larger than 128 pixels

    The other arguments are those of train_lora. The folder is one of diffusers' ControlNetModel. UserError for whatever
    is missing or does not fit.
    """
    require_new_folder(output)
    lesson = open_lesson(model, dataset, output, prompt, size, device)
    pipe = lesson.pipe
    controlnet = ControlNetModel.from_unet(pipe.unet, pipe.vae.downsampling, seed)
    pipe.unet.freeze()
    if recomputing:
        recompute(pipe.unet)
        recompute(controlnet)
    denoiser = Led(pipe.unet, Frozen(pipe.text_encoder), controlnet)
    shown = list(range(min(len(lesson.pictures), 8 if lesson.size <= SMALL else 1)))
    followed, captions = outlines(lesson.pictures[shown]), [lesson.captions[i][0] for i in shown]

    def objective():
        return objective_of(lesson, DROPOUT, [Outlines(lesson.pictures)])

    def draw(path):
        """The outlines, and what is drawn by them."""
        drawn = lesson.draw(captions, seed=1, controlnet=controlnet, control=followed)
        draw_sheet(path, np.concatenate([followed / 255, drawn]), captions * 2, columns=len(captions))

    def write():
        controlnet.save_pretrained(output)
        record = {"model": str(model), "dataset": str(dataset), "size": lesson.size, "follows": "outlines"}
        pretrained.write_json(Path(output) / RECORD, record)

    if learning_rate is None:
        learning_rate = 1e-3 if lesson.size <= SMALL else 1e-5
    length = {"minutes": minutes, "steps": steps, "seed": seed, "batch_size": batch_size}
    tuned = Tuned(denoiser, controlnet_parameters)
    return tune("controlnet", lesson, tuned, write, output, objective, draw, learning_rate=learning_rate, **length)
