"""What the weights in a training's folder make of some of its pictures.

Both stages are looked at by what they are trained with: pictures, latents, noise. Of the U-Net, the losses with what
leads each picture, with nothing, and with what leads others say whether it listens to it at all.
"""

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minild import data
from minild.checkpoints import STAGES
from minild.data.pictures import gather, spread
from minild.diffusion.loss import target_of
from minild.diffusion.schedule import add_noise
from minild.errors import UserError
from minild.evaluation import psnr, rebuild, ssim
from minild.evaluation.measures import WINDOW
from minild.models import Condition, Conditioned, VQModel
from minild.pipelines import Pipeline
from minild.pipelines.conditions import given, nothing_like
from minild.pipelines.drawing import sample_latents
from minild.pipelines.folder import INDEX, read_folder
from minild.pipelines.inputs import inputs
from minild.pipelines.request import requested
from minild.training.autoencoder import encode_pictures
from minild.training.first_stage import open_autoencoder
from minild.training.flat import flatten
from minild.training.latent_diffusion import Denoiser

PICTURES, DRAWN = 32, 8  # that are looked at, and drawn
LOUD = 1.3  # a standard deviation of drawn latents, which should be 1, that is worth a second drawing
LEVELS = (0.5, 0.7, 0.9, 0.97)  # shares of the timesteps, where a caption says what a noisy latent no longer does


class Losses(NamedTuple):
    """Of a U-Net, with what leads each picture, with nothing, and with what leads others, at one of LEVELS."""

    level: float  # where the others' cost most beside the true
    true: float
    nothing: float
    others: float | None  # None where all that leads the pictures is the same
    mean: float  # with the true, over LEVELS


class Lag(NamedTuple):
    """How far the moving average is behind the weights: the losses of both, their distance over the weights' norm."""

    average: float
    weights: float
    distance: float


class Drawn(NamedTuple):
    """The standard deviations of latents drawn with the model's own guidance, `scale`, and without any."""

    scale: float
    guided: float
    unguided: float


class Look(NamedTuple):
    """What is measured on some of the pictures. None: there is nothing to measure it on, or no need."""

    regularisation: str
    compression: float  # how many numbers of a picture there are to one of its latent
    psnr: float
    ssim: float | None
    deviation: float  # of the latents, before the scaling factor
    scaling_factor: float
    losses: Losses | None = None
    unseen: float | None = None  # Losses.mean on pictures that the training was not shown
    lag: Lag | None = None
    drawn: Drawn | None = None


def look_at(record, progress=False):
    """-> (the Look at the weights of a doctor_record.Record, None), or (None, why there is none).

    progress: show a bar on stderr once it takes longer than a second
    """
    if not (record.folder / "vae" / "config.json").is_file():
        return None, "no weights are there yet"
    with tqdm(total=4, desc="look", unit="look", delay=1, disable=not progress) as bar:
        try:
            return _look(record, bar.update), None
        except UserError as error:  # pictures that are gone, weights that are broken
            return None, str(error)


def _look(record, tell):
    dataset = data.load(record.state["dataset"], "train", record.state["size"])
    shown = spread(dataset, record.preset.pictures)
    rows = [shown[i] for i in spread(shown, PICTURES)]
    pictures, captions = np.stack([dataset[i][0] for i in rows]), [dataset.captions(i) for i in rows]
    pipe = Pipeline(**read_folder(record.folder)) if (record.folder / INDEX).is_file() else None
    vae = pipe.vae if pipe else open_autoencoder(record.folder / "vae")
    tell()
    rebuilt = rebuild(vae, pictures)
    posterior = pipe.posterior if pipe else record.preset.posterior
    z = _latents(vae, pictures, posterior)
    likeness = float(ssim(rebuilt, pictures).mean()) if min(pictures.shape[1:3]) >= WINDOW else None
    factor, kind = vae.config["scaling_factor"], "vq" if isinstance(vae, VQModel) else "kl"
    compression = pictures.size / z.size
    first = kind, compression, float(psnr(rebuilt, pictures).mean()), likeness, float(z.std()), factor
    tell()
    if not pipe or "low resolution" in pipe.kinds:  # whose U-Net is told a level of noise besides
        return Look(*first)
    led = Led(pipe, dataset, rows, pictures, captions)
    losses = led.losses(factor * z)
    unseen = _unseen(record, pipe, pictures)
    tell()
    lag = _lag(record, led, factor * z, losses.mean)
    drawn = led.drawn()
    tell()
    return Look(*first, losses, unseen, lag, drawn)


def _latents(vae, pictures, posterior):
    """Of the posteriors of pictures what stage two learns, before the scaling factor: (N, h, w, c)."""
    means, deviations = encode_pictures(vae, pictures, 1 if pictures.shape[1] > 64 else PICTURES, posterior)
    return means + deviations * np.random.default_rng(0).standard_normal(means.shape, np.float32)


def _unseen(record, pipe, pictures):
    """The mean loss, over LEVELS, on pictures of the test; None where words do not lead alone, or some of them were
    trained on.
    """
    if pipe.kinds != ("text",):
        return None
    dataset = data.load(record.state["dataset"], "test", record.state["size"])
    others, captions = gather(dataset, PICTURES)
    if any((others == picture).all(axis=(1, 2, 3)).any() for picture in pictures):
        return None
    led = Led(pipe, dataset, spread(dataset, PICTURES), others, captions)
    return led.losses(pipe.vae.config["scaling_factor"] * _latents(pipe.vae, others, pipe.posterior)).mean


class Led:
    """A pipeline, pictures of its training, and what leads each of them."""

    def __init__(self, pipe, dataset, rows, pictures, captions):
        self.pipe, self.pictures, self.captions = pipe, pictures, [several[0] for several in captions]
        self.asked = {}
        keys = captions
        if pipe.kinds != ("text",):
            self.asked = inputs(pipe, dataset, rows, pictures, np.random.default_rng(0))
            names = self.asked.get("labels", range(len(rows)))
            keys = captions if "text" in pipe.kinds else [(name,) for name in names]
        self.others = _others(keys)

    def conditions(self):
        """The Condition of the pictures, of nothing, and of the others; of the pictures again where there are none."""
        pipe, (condition, nothing) = self.pipe, self._given()
        others = slice(None) if self.others is None else self.others
        if "text" not in pipe.kinds:
            return condition, nothing, condition.of(others)
        contexts = pipe.encode_prompts(self.captions)
        empty = pipe.encode_prompts([""] * len(contexts))
        return tuple(condition._replace(context=context) for context in (contexts, empty, contexts[others]))

    def losses(self, z):
        """The Losses on latents z (N, h, w, c) of unit variance."""
        conditions = self.conditions()
        rows = np.array([self._losses_at(z, level, conditions) for level in LEVELS], float)  # level, condition
        worst = int(np.argmax(rows[:, 2] / rows[:, 0]))
        true, nothing, others = map(float, rows[worst])
        differ = self.others is not None
        return Losses(LEVELS[worst], true, nothing, others if differ else None, float(rows[:, 0].mean()))

    def _losses_at(self, z, level, conditions):
        schedule, model, rng = self.pipe.schedule, Conditioned(self.pipe.unet), np.random.default_rng(1)
        t, *levels = schedule.training_levels(np.full(len(z), level))
        noise = rng.standard_normal(z.shape, np.float32)
        target = target_of(schedule.config["prediction_type"], z, noise, levels)
        x, t = add_noise(z, noise, *levels).astype(np.float32), np.asarray(t, np.float32)
        return [((model(x, t, condition)[..., : z.shape[-1]] - target) ** 2).mean() for condition in conditions]

    def drawn(self):
        """The Drawn; None where guidance is off, or draws latents that are no larger than they should be."""
        scale = self.pipe.guidance_scale
        guided = self._deviation(scale) if scale > 1 else 0.0
        return Drawn(scale, guided, self._deviation(1)) if guided > LOUD else None

    def _deviation(self, guidance_scale):
        """The standard deviation of latents that are drawn from what leads the first pictures."""
        pipe, (condition, nothing) = self.pipe, (part.of(slice(0, DRAWN)) for part in self._given())
        texts = [caption if "text" in pipe.kinds else "" for caption in self.captions[:DRAWN]]
        how = {"steps": 20, "guidance_scale": guidance_scale, "seed": 1, "size": self.pictures.shape[1:3]}
        return float(sample_latents(pipe, requested(pipe, texts, **how, given=condition, nothing=nothing)).std())

    def _given(self):
        """What leads the pictures beside words, and what stands for nothing of it: two Conditions."""
        condition = given(self.pipe, **self.asked)[0] if self.asked else Condition()
        return condition, nothing_like(self.pipe, condition)


def _others(keys):
    """For each picture the number of another that something else leads, (N,); None where there is none for one.

    keys: for each, all that is true of it.
    """
    N, numbers = len(keys), []
    for i, true in enumerate(keys):
        there = (j % N for j in range(i + N // 2, i + N // 2 + N))
        numbers.append(next((j for j in there if keys[j][0] not in true), None))
    return None if None in numbers else np.array(numbers)


def _lag(record, led, z, mean):
    """The Lag of stage two's moving average, which the folder's U-Net has; None before its first save."""
    pipe, state = led.pipe, record.state
    if not record.saved or state["stage"] != STAGES[1] or not state["taken"][STAGES[1]]:
        return None
    try:
        weights = record.saved.read_arrays()["weights"]
    except UserError:  # the training that runs has removed that save
        return None
    trained = [Denoiser(pipe.unet, text) for text in dict.fromkeys((pipe.text_encoder, None))]
    fitting = [model for model in trained if model.parameter_count() == weights.size]
    if not fitting:
        return None
    held = flatten(fitting[0], "data").array
    distance = float(np.linalg.norm(weights - held) / np.linalg.norm(weights))
    average = held.copy()
    held[:] = weights
    lag = Lag(mean, led.losses(z).mean, distance)
    held[:] = average
    return lag
