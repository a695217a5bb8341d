"""DreamBooth: the whole U-Net learns a thing from a few pictures of it (Ruiz et al. 2022, arXiv 2208.12242).

A model that learns from a few pictures alone forgets what else there is of the kind. So it may learn from pictures of
the kind beside them, which it draws itself before the training: prior preservation (section 3.3).
"""

import numpy as np

from minild.errors import UserError
from minild.pipelines.request import require_texts
from minild.pipelines.sheet import draw_sheet
from minild.training.alone import new_folder
from minild.training.conditioning import Frozen
from minild.training.latent_diffusion import Denoiser
from minild.training.tuning import (
    SMALL,
    Lesson,
    objective_of,
    open_lesson,
    recompute,
    require_new_folder,
    training_folder,
    tune,
)

SHEET = 16  # of the pictures of the kind, shown


class PriorPreservation:
    """L = L_thing + λ L_prior, each the mean over its own pictures (equation 2): an objective of training_steps.

    thing, prior: DiffusionObjectives; weight: λ. A batch has a picture of either for each of its rows.
    """

    def __init__(self, thing, prior, weight):
        self.thing, self.prior, self.weight = thing, prior, weight

    def rows(self, rng, size):
        """Those of the thing."""
        return self.thing.rows(rng, size)

    def batch(self, rng, size, progress):
        """The arrays of the thing's batch, and then those of the prior's, as many."""
        return *self.thing.batch(rng, size, progress), *self.prior.batch(rng, size, progress)

    def forward(self, denoiser, batch):
        """-> {"loss": L, "prior": L_prior} on the device, cache."""
        half = len(batch) // 2
        losses, thing = self.thing.forward(denoiser, batch[:half])
        priors, prior = self.prior.forward(denoiser, batch[half:])
        loss = losses["loss"] + self.weight * priors["loss"]
        return {"loss": loss, "prior": priors["loss"]}, (thing, prior)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of L into the gradients of all that is trained."""
        thing, prior = cache
        self.thing.backward(dloss, thing)
        self.prior.backward(self.weight * dloss, prior)


def draw_class(lesson, prompt, count, seed):
    """What the pipeline draws of a prompt before it is trained -> (count, size, size, 3) uint8."""
    pictures = lesson.draw([prompt] * count, steps=50, seed=seed, progress=True)
    return np.round(pictures * 255).astype(np.uint8)


def train_dreambooth(model, dataset, output, prompt, class_prompt=None, class_pictures=None, prior_weight=None,
                     text_encoder=False, recomputing=False, minutes=None, steps=None, seed=0, device="cpu", size=None,
                     batch_size=None, learning_rate=None):  # fmt: skip
    """Train the U-Net of the pipeline `model` on pictures of a thing, and write the pipeline that it then is to the
    folder `output` -> how many steps it took.

    prompt         what all of the pictures are called, with a word for the thing and its kind: "a sks dog"
    class_prompt   what the kind is called, "a dog": turns on prior preservation
    class_pictures  how many are drawn of it; None: 100
    prior_weight   λ, how much they count; None: 1
    text_encoder   whether the text encoder is trained, too
    batch_size     pictures of the thing a step, and as many of the kind beside them; None: 8, and 1 where they are
                   larger than 128 pixels
    learning_rate  at its peak; None: 2e-4, and 5e-6 where the pictures are larger than 128 pixels

    The other arguments are those of train_lora. UserError for whatever is missing or does not fit.
    """
    require_new_folder(output)
    _require_prior(prompt, class_prompt, class_pictures, prior_weight)
    lesson = open_lesson(model, dataset, output, prompt, size, device)
    lesson = lesson._replace(captions=[(prompt,)] * len(lesson.pictures))
    pipe, small = lesson.pipe, lesson.size <= SMALL
    if recomputing:
        recompute(pipe.unet)
    beside = "" if class_prompt is None else f", beside {class_prompt!r}"
    pipe.record = pipe.record | {"learnt": [*pipe.record.get("learnt", []), f"{prompt!r} by DreamBooth{beside}"]}
    denoiser = Denoiser(pipe.unet, pipe.text_encoder if text_encoder else Frozen(pipe.text_encoder))

    def objective():
        if class_prompt is None:
            return objective_of(lesson)
        count = 100 if class_pictures is None else class_pictures
        drawn = draw_class(lesson, class_prompt, count, seed)
        shown = drawn[:SHEET]
        with new_folder(training_folder(output)) as folder:
            draw_sheet(folder / "class-pictures.png", shown / 255, [class_prompt] * len(shown))
        kind = Lesson(pipe, drawn, [(class_prompt,)] * count, lesson.size)
        weight = 1.0 if prior_weight is None else prior_weight
        return PriorPreservation(objective_of(lesson), objective_of(kind), weight)

    def draw(path):
        """What the thing looks like by now, and what another of its kind."""
        prompts = [text for text in (prompt, class_prompt) if text for _ in range(4 if small else 1)]
        draw_sheet(path, lesson.draw(prompts, seed=1), prompts)

    def write():
        pipe.save_pretrained(output)

    settings = {"minutes": minutes, "steps": steps, "seed": seed}
    settings["batch_size"] = (8 if small else 1) if batch_size is None else batch_size
    settings["learning_rate"] = (2e-4 if small else 5e-6) if learning_rate is None else learning_rate
    return tune("dreambooth", lesson, denoiser, write, output, objective, draw, **settings)


def _require_prior(prompt, class_prompt, class_pictures, prior_weight):
    """UserError for prompts that say nothing, and for a prior that cannot be, or is half asked for."""
    require_texts([text for text in (prompt, class_prompt) if text is not None])
    if not (prompt or "").strip():
        raise UserError("no prompt: say what the pictures show, a word for the thing and its kind")
    if class_prompt is None:
        if class_pictures is not None or prior_weight is not None:
            raise UserError("pictures of the kind, and their weight, need a class prompt: say what the kind is called")
    elif not class_prompt.strip():
        raise UserError("the class prompt is empty: say what the kind is called")
    if class_pictures is not None and class_pictures < 1:
        raise UserError(f"class pictures: expected a whole number from 1, got {class_pictures}")
    if prior_weight is not None and not 0 <= prior_weight < float("inf"):
        raise UserError(f"prior weight: expected a number from 0, got {prior_weight}")
