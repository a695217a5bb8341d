"""`minild train perceptual`: a small VGG learns to classify; its features are minild's own perceptual distance.

LPIPS's published network is a VGG-16 trained on a million photographs, and does not come with minild. What the distance
needs of it is that its features tell pictures apart by what they show rather than pixel by pixel, and those a small
network learns in minutes from the emoji and the shapes.
"""

from typing import Any, NamedTuple

import numpy as np

from minild import pretrained
from minild.backend import device_of, get_array_module, to_device
from minild.data.classes import distort, load_classes
from minild.durable import files_together
from minild.engine.memory import keep_freed_memory
from minild.models import LPIPS, VGG
from minild.nn.layers import Linear
from minild.nn.module import Module
from minild.ops.loss import cross_entropy, cross_entropy_backward
from minild.training.alone import new_folder, require_unused, train_alone
from minild.training.presets import StagePreset

CONFIG = {"widths": [16, 32, 64, 64], "depths": [2, 2, 2, 2]}
PRESET = StagePreset(learning_rate=2e-3, batch_size=32)
MINUTES = 6
CHECKED = 512  # pictures whose classes are guessed at the end


class Classifier(Module):
    """A VGG and a linear layer on the means of its last features: x (N, H, W, 3) -> logits (N, classes)."""

    def __init__(self, config, classes):
        self.vgg = VGG(VGG.complete_config(config))
        self.head = Linear(config["widths"][-1], classes)

    @property
    def device(self):
        """The name of the device that holds it."""
        return device_of(self.head.weight.data)

    def forward(self, x):
        """x (N, H, W, 3) -> logits (N, classes)."""
        levels, vgg = self.vgg.forward(x)
        logits, head = self.head.forward(levels[-1].mean(axis=(1, 2)))
        return logits, (vgg, head, levels[-1].shape)

    def backward(self, dlogits, cache):
        """dlogits (N, classes) -> dx (N, H, W, 3)."""
        vgg, head, (N, h, w, C) = cache
        dmean = self.head.backward(dlogits, head)
        dlast = get_array_module(dmean).broadcast_to((dmean / (h * w)).reshape(N, 1, 1, C), (N, h, w, C))
        return self.vgg.backward([*[None] * (len(self.vgg.last) - 1), dlast], vgg)


class ClassifierCache(NamedTuple):
    model: Any
    classifier: Any
    loss: Any


class ClassifierObjective:
    """The cross-entropy of the classes of distorted pictures, in nats; and the share of right guesses."""

    def __init__(self, pictures, labels):
        self.pictures, self.labels = pictures, labels

    def batch(self, rng, size, progress):
        """Random pictures, distorted, and their labels, on the host."""
        rows = rng.integers(len(self.pictures), size=size)
        return distort(self.pictures[rows], rng), self.labels[rows]

    def forward(self, classifier, batch):
        """-> {"loss", "accuracy"} on the device, cache."""
        x, labels = (to_device(array, classifier.device) for array in batch)
        logits, cache = classifier.forward(x)
        loss, loss_cache = cross_entropy(logits, labels)
        accuracy = (logits.argmax(axis=1) == labels).mean()
        return {"loss": loss, "accuracy": accuracy}, ClassifierCache(classifier, cache, loss_cache)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the classifier's gradients."""
        cache.model.backward(cross_entropy_backward(dloss, cache.loss), cache.classifier)


def train_perceptual(output, minutes=None, steps=None, seed=0, device="cpu", size=64):
    """Train the network of the perceptual distance and write it as a models.LPIPS to the folder `output`.

    minutes or steps say for how long; with neither, 6 minutes. Beside the model's files the folder holds minild.json,
    which says how it was trained and how many of 512 newly distorted pictures it puts into their class. UserError for
    a folder that holds a model already, or cannot be written, and watch.Diverged where the loss is no number any more.
    """
    require_unused(output)
    keep_freed_memory()
    pictures, labels, names = load_classes(size)
    model = Classifier(CONFIG, len(names)).initialise(np.random.default_rng(seed))
    for parameter in model.vgg.parameters():
        if parameter.layout:
            parameter.data *= 6**0.5  # the variance 2 / fan_in, which ReLU keeps (He et al. 2015, equation 10)
    model.to(device)
    objective = ClassifierObjective(pictures, labels)
    minutes = MINUTES if minutes is None and steps is None else minutes
    with new_folder(output) as folder:
        budget, _ = train_alone("perceptual", model, objective, folder, PRESET, minutes, steps, seed)
        record = {"size": size, "seed": seed, "classes": len(names), "steps": budget.taken}
        record |= {"seconds": round(budget.elapsed, 1), "accuracy": _accuracy(model, objective)}
        _write(folder, model, record)


def _accuracy(model, objective):
    x, labels = objective.batch(np.random.default_rng(0), CHECKED, 1.0)
    logits = model(to_device(x, model.device))
    return float((logits.argmax(axis=1) == to_device(labels, model.device)).mean())


def _write(folder, model, record):
    distance = LPIPS.from_config(CONFIG)
    state = {f"vgg.{name}": array for name, array in model.vgg.state_dict().items()}
    distance.load_state_dict(distance.state_dict() | state)
    with files_together(folder, last="config.json") as aside:
        distance.save_pretrained(aside, "float16")
        pretrained.write_json(aside / "minild.json", record)
