"""A classifier of a pipeline's noisy latents, for classifier guidance (Dhariwal & Nichol 2021, arXiv 2105.05233)."""

from typing import Any, NamedTuple

import numpy as np

from minild import data, pretrained
from minild.backend import to_device
from minild.data.classes import class_names
from minild.data.pictures import gather, spread, tell_skipped
from minild.diffusion import FlowSchedule
from minild.diffusion.schedule import add_noise
from minild.durable import files_together
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.models import LatentClassifier
from minild.ops.loss import cross_entropy, cross_entropy_backward
from minild.pipelines import load
from minild.pipelines.classifier import purpose
from minild.pipelines.conditions import usable_labels
from minild.pipelines.folder import RECORD
from minild.pipelines.inputs import picture_size
from minild.training.alone import new_folder, require_unused, train_alone
from minild.training.autoencoder import encode_pictures
from minild.training.leads import classes_of
from minild.training.presets import StagePreset, preset_for

PRESET = StagePreset(learning_rate=1e-3, batch_size=64, weight_decay=0.05)
MINUTES = 3


class LatentClassifierCache(NamedTuple):
    model: Any
    classifier: Any
    loss: Any


class LatentClassifierObjective:
    """The cross-entropy of the classes of noisy latents z_t, t uniform, in nats; and the share of right guesses.

    means, deviations: (N, h, w, c), the posteriors of the pictures, multiplied by scaling_factor; labels (N,).
    """

    def __init__(self, means, deviations, scaling_factor, labels, schedule):
        self.means, self.deviations = means * scaling_factor, deviations * scaling_factor
        self.labels, self.schedule = labels, schedule

    def batch(self, rng, size, progress):
        """Noisy latents, their timesteps and labels, on the host."""
        rows = rng.integers(len(self.means), size=size)
        noise = rng.standard_normal((2, size, *self.means.shape[1:]), dtype=np.float32)
        t = rng.integers(self.schedule.train_steps, size=size)
        z = self.means[rows] + self.deviations[rows] * noise[0]
        return add_noise(z, noise[1], *self.schedule.noise_levels(t)), t.astype(np.float32), self.labels[rows]

    def forward(self, classifier, batch):
        """-> {"loss", "accuracy"} on the device, cache."""
        x, t, labels = (to_device(array, classifier.device) for array in batch)
        logits, cache = classifier.forward(x, t)
        loss, loss_cache = cross_entropy(logits, labels)
        accuracy = (logits.argmax(axis=1) == labels).mean()
        return {"loss": loss, "accuracy": accuracy}, LatentClassifierCache(classifier, cache, loss_cache)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the classifier's gradients."""
        cache.model.backward(cross_entropy_backward(dloss, cache.loss), cache.classifier)


def train_classifier(model, output, minutes=None, steps=None, seed=0, device="cpu", dataset=None, config=None):
    """Train a models.LatentClassifier on the latents of the pipeline `model` (a name or a folder), written to `output`.

    The classes are those of the data set the pipeline was trained on, or of `dataset`: of shapes, which two there are;
    of emoji, the group; of a folder, the caption. minutes or steps say for how long; with neither, 3 minutes. config:
    fields of the classifier's config. Beside the model's files, minild.json tells how it was trained, for what latents
    (pipelines.classifier), and how many of the last 100 steps' noisy latents it put into their class. UserError for a
    folder that holds a model already or cannot be written, a pipeline that does not say what it was trained on, or a
    rectified flow; watch.Diverged where the loss is no number.
    """
    require_unused(output)
    keep_freed_memory()
    pipe = load(model, device=device)
    if isinstance(pipe.schedule, FlowSchedule):
        raise UserError(f"{model} is a rectified flow, which no classifier leads: name a pipeline of another objective")
    name = dataset or pipe.record.get("dataset")
    if name is None:
        raise UserError(f"{model} does not say what it was trained on: give a dataset")
    train_set = data.load(name, "train", picture_size(pipe))
    tell_skipped(train_set)
    limit = preset_for(str(name)).pictures
    rows = spread(train_set, limit)
    classes = classes_of(("class",), train_set, rows)
    labels = usable_labels(classes, class_names(train_set, rows))
    latents = encode_pictures(pipe.vae, gather(train_set, limit)[0], posterior=pipe.posterior)
    objective = LatentClassifierObjective(*latents, pipe.vae.config["scaling_factor"], labels, pipe.schedule)
    fields = {"in_channels": latents[0].shape[-1], "classes": classes} | (config or {})
    classifier = LatentClassifier.from_config(fields, seed).to(device)
    minutes = MINUTES if minutes is None and steps is None else minutes
    with new_folder(output) as folder:
        budget, last = train_alone("classifier", classifier, objective, folder, PRESET, minutes, steps, seed)
        record = {"model": str(model), "dataset": str(name), "seed": seed, "steps": budget.taken}
        record |= {"seconds": round(budget.elapsed, 1), "purpose": purpose(pipe)}
        if last:
            record["accuracy"] = float(sum(metrics["accuracy"] for metrics in last)) / len(last)
        with files_together(folder, last="config.json") as aside:
            classifier.save_pretrained(aside)
            pretrained.write_json(aside / RECORD, record)
