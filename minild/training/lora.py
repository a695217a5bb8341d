"""LoRA: a pipeline learns by low-rank updates of its attentions' projections alone (Hu et al. 2021, arXiv 2106.09685).

W + (alpha / rank) A B, W frozen and B zero at first: what is trained begins as the model itself.
"""

import numpy as np

from minild.errors import UserError
from minild.models.lora import add_updates, updates_of, write_lora
from minild.training.conditioning import Frozen
from minild.training.latent_diffusion import Denoiser
from minild.training.tuning import SMALL, Tuned, open_lesson, recompute, require_file, tune

NAME = "trained"  # of the updates, while they are


def lora_parameters(denoiser):
    """(name, Parameter) of the updates in a Denoiser's models."""
    for part in ("unet", "text_encoder"):
        model = getattr(denoiser, part)
        if model and not isinstance(model, Frozen):
            for path, update in updates_of(model, NAME).items():
                yield from update.named_parameters(f"{part}.{path}.")


def train_lora(model, dataset, output, prompt=None, rank=4, alpha=None, text_encoder=False, recomputing=False,
               minutes=None, steps=None, seed=0, device="cpu", size=None, batch_size=None,
               learning_rate=None):  # fmt: skip
    """Train a LoRA of the pipeline `model` on pictures, and write it to the file `output` -> how many steps it took.

    dataset       a folder of pictures, with captions or without; a picture that has none is called `prompt`
    rank, alpha   of every update; alpha is the rank where it is None, so that its factor is 1
    text_encoder  whether the text encoder's projections have updates, too
    recomputing   keep the inputs of blocks alone, and compute each once more in its backward: less memory, more time
    minutes, steps  how long; with neither, 3 minutes
    size          of the pictures, in pixels; None: that which the pipeline draws
    batch_size    None: 16, and 1 where the pictures are larger than 128 pixels
    learning_rate  at its peak; None: 1e-3, and 1e-4 where the pictures are larger than 128 pixels

    diffusers' load_lora_weights reads the file. UserError for whatever is missing or does not fit.
    """
    if rank < 1:
        raise UserError(f"rank: expected a whole number from 1, got {rank}")
    require_file(output)
    lesson = open_lesson(model, dataset, output, prompt, size, device)
    pipe, rng = lesson.pipe, np.random.default_rng((seed, 0))
    trained = {"unet": pipe.unet} | ({"text_encoder": pipe.text_encoder} if text_encoder else {})
    for part, one in trained.items():
        if not add_updates(one, part, NAME, rank, alpha, rng):
            raise UserError(f"{model}: its {part} has no attention to update")
    if recomputing:
        recompute(pipe.unet)
    denoiser = Denoiser(pipe.unet, pipe.text_encoder if text_encoder else Frozen(pipe.text_encoder))

    def write():
        write_lora(output, trained, NAME)

    if learning_rate is None:
        learning_rate = 1e-3 if lesson.size <= SMALL else 1e-4
    length = {"minutes": minutes, "steps": steps, "seed": seed, "batch_size": batch_size}
    tuned = Tuned(denoiser, lora_parameters)
    return tune("lora", lesson, tuned, write, output, learning_rate=learning_rate, **length)
