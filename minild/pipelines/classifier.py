"""A classifier of noisy latents that leads a pipeline: opened, and held to the latents that it has learnt from.

Latents of another autoencoder may have as many channels, and mean something else. So the folder of a classifier keeps
`purpose(pipe)` of the pipeline that it was trained for, in its minild.json.
"""

import hashlib
import math
from numbers import Real
from pathlib import Path

import numpy as np

from minild.diffusion import FlowSchedule
from minild.errors import UserError
from minild.models import LatentClassifier
from minild.pipelines.conditions import usable_labels
from minild.pipelines.drawing import ClassifierLead
from minild.pipelines.folder import RECORD, read_record
from minild.reading import usable

ENCODES = ("encoder.", "quant_conv.")  # how the names of the weights begin that make latents of pictures
APART = 100  # timesteps, of those whose noise is compared


def purpose(pipe):
    """What a classifier of a pipeline's latents is for -> {"latents": checksum, "alphas_cumprod": every 100th of them}.

    The checksum is of the encoder's weights, rounded to float16 so that it is the same in whatever dtype they are read,
    and of the scaling factor. A rectified flow has no alphas_cumprod.
    """
    vae, of_noise = pipe.vae, {}
    checksum = hashlib.sha256(repr(float(vae.config["scaling_factor"])).encode())
    for name, array in sorted(vae.state_dict().items()):
        if name.startswith(ENCODES):
            with np.errstate(over="ignore"):
                checksum.update(name.encode() + array.astype("<f2").tobytes())
    if not isinstance(pipe.schedule, FlowSchedule):
        of_noise = {"alphas_cumprod": [round(float(x), 6) for x in pipe.schedule.alphas_cumprod[::APART]]}
    return {"latents": checksum.hexdigest(), **of_noise}


def classifier_lead(pipe, classifier, labels, scale):
    """-> ClassifierLead of a models.LatentClassifier, or of the folder of one. UserError unless it fits the pipeline.

    Its classes are to be the pipeline's, where that has some: labels by number are then the same for both.
    """
    if not isinstance(classifier, LatentClassifier):
        classifier = _open(pipe, Path(classifier))
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise UserError(f"classifier scale must be a finite number, got {scale!r}")
    channels, classes = classifier.config["in_channels"], classifier.config["classes"]
    if channels != (c := pipe.vae.latent_width(pipe.vae.config)):
        raise UserError(f"the classifier is of latents with {channels} channels, not {c} as the model")
    if "class" in pipe.kinds and classes != pipe.classes:
        raise UserError(f"the classifier knows other classes than the model: {', '.join(classes)}")
    return ClassifierLead(classifier, usable_labels(classes, labels), scale)


def _open(pipe, folder):
    """The LatentClassifier in a folder. UserError where its record says that it is of other latents, or other noise."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no classifier: name a folder that `minild train classifier` wrote")
    classifier = LatentClassifier.from_pretrained(folder, str(pipe.dtype), pipe.device)
    record, ours = read_record(folder), purpose(pipe)
    its = record.get("purpose")
    if its is None:  # an older folder, which does not say
        return classifier
    with usable(folder / RECORD):
        same_latents, same_noise = its["latents"] == ours["latents"], _alike(its, ours)
    told = f"it was trained for {record.get('model')}"
    if not same_latents:
        raise UserError(f"{folder} is a classifier of another autoencoder's latents: {told}")
    if not same_noise:
        raise UserError(f"{folder} is a classifier of latents of another noise schedule: {told}")
    return classifier


def _alike(*purposes):
    """Whether the noise of two purposes is the same; that of a rectified flow, which no classifier leads, is any."""
    levels, others = (each.get("alphas_cumprod") for each in purposes)
    return None in (levels, others) or (len(levels) == len(others) and np.allclose(levels, others, atol=1e-4))
