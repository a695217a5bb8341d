"""Drawing: one generator of latents, and all the pictures of a request through it.

Every way to draw is that generator. Ways differ in how the latents begin (`request.latents`, `request.start`), in what
each step mixes in (`mix`), and so in how they end: the sample, too, passes `mix`, as latents without noise (ᾱ = 1).
From words, the latents begin as unit-variance noise and nothing is mixed in. What begins with a picture is in
image_to_image.py and inpainting.py.
"""

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from minild.backend import to_device, to_host
from minild.diffusion import NOISE, SAMPLERS
from minild.diffusion.guidance import classifier_guided, guided
from minild.diffusion.variance import LEARNED
from minild.errors import UserError
from minild.models import Condition, Conditioned
from minild.pipelines import planning
from minild.pipelines.watching import WatchedModel
from minild.random import image_generators, standard_normal


class ClassifierLead(NamedTuple):
    """A classifier that leads, to which classes, and how strongly."""

    classifier: Any  # a models.LatentClassifier, where the pipeline computes and in what
    labels: Any  # (N,) whole numbers, on the host
    scale: float

    def of(self, rows):
        """That of some of the pictures."""
        return self._replace(labels=self.labels[rows])


class Guidance(NamedTuple):
    """What leads the U-Net; but for the last in the order in which minild.diffusion.guidance.guided takes it."""

    condition: Condition  # of what is asked for
    negative: Any  # that of the negative prompts, or of nothing; None at scale 1, which does without
    scale: float
    rescale: float
    lead: Any = None  # a ClassifierLead; None for none

    def of(self, rows):
        """The guidance of some of the pictures."""
        away, lead = (None if part is None else part.of(rows) for part in (self.negative, self.lead))
        return self._replace(condition=self.condition.of(rows), negative=away, lead=lead)


def encode(pipe, request):
    """-> the Guidance of all pictures of a Request."""
    condition, negative = (_on_device(pipe, part) for part in (request.given, request.nothing))
    guides = request.guidance_scale != 1
    if "text" in pipe.kinds:
        condition = condition._replace(context=pipe.encode_prompts(request.prompts, request.clip_skip))
        # The reference's clip_skip, too, is for the prompts alone.
        away = pipe.encode_prompts(request.negative_prompts) if guides else None
        negative = negative._replace(context=away)
    negative = negative if guides else None
    return Guidance(condition, negative, request.guidance_scale, request.guidance_rescale, request.lead)


def _on_device(pipe, condition):
    """A Condition of host arrays where the pipeline computes, and in what."""

    def move(part):
        return to_device(part.astype(pipe.dtype) if part.dtype.kind == "f" else part, pipe.device)

    return Condition(*(None if part is None else move(part) for part in condition))


def without_variance(predict):
    """predict without the channels in which a model may tell its variance, which only DDPM's steps are drawn with."""
    return lambda latents, t: predict(latents, t)[..., : latents.shape[-1]]


def draw_latents(pipe, request, guidance, noise, generators, mix=None, start=NOISE, first=0):
    """Yield the latents (N, h, w, c) after each step of the request's sampler; the last are what is drawn.

    guidance     of these N pictures, which may be some of the request's
    noise        of unit variance, (N, h, w, c), on the host, of any dtype; of ddim-inverse the latents of pictures
    generators   the random numbers of each
    mix          mix(z, ᾱ) -> z: what each step mixes in (minild.diffusion)
    start        a diffusion.Start, its latents of these pictures, on the host too
    first        the number in the request of the first of these pictures, for those who watch (pipelines.watching)
    """
    h, w, _ = request.shape
    with planning.passes(pipe.unet, h, w, len(request.prompts), guidance.scale) as passes:
        model = WatchedModel(Conditioned(pipe.unet, *(request.control or ())), guidance, request, first)
        predict = guided(model, *guidance[:-1], passes)
        if request.settings.get("variance_type") not in LEARNED:
            predict = without_variance(predict)
        if guidance.lead:
            predict = _led(predict, guidance.lead, request.schedule)
        if start.clean is not None:
            start = start._replace(clean=to_device(start.clean.astype(pipe.dtype), pipe.device))
        noise = to_device(noise.astype(pipe.dtype), pipe.device)
        sampler, settings = SAMPLERS[request.sampler], {"mix": mix, "start": start, **request.settings}
        steps = sampler(predict, noise, request.schedule, request.steps, generators, **settings)
        model.step = start.skip
        for step, z in enumerate(steps, start.skip + 1):
            model.step = step
            z = mix(z, 1.0) if mix and step == request.steps else z
            model.tell(z)
            yield z


def _led(predict, lead, schedule):
    """`predict`, led by a classifier."""

    def gradient(latents, t):
        return lead.classifier.log_probability(latents, t, to_device(lead.labels, lead.classifier.device))[1]

    return classifier_guided(predict, gradient, lead.scale, schedule)


def draw_pictures(pipe, request, progress=False, mixing=None, at_once=None):
    """Draw the pictures of a Request -> (N, H, W, 3) float32 in [0, 1]. UserError where the model gives no numbers.

    progress   show a bar on stderr once it takes longer than a second
    mixing     mixing(rows, noise) -> mix: what `draw_latents` mixes into the pictures `rows`, a slice, whose noise is
               given, (N, h, w, c) on the host; None for nothing
    at_once    how many are drawn by one call of `draw_latents`; None for what is fastest
    """
    return _finish(pipe, request, progress, mixing, pipe.decode, at_once)


def sample_latents(pipe, request, progress=False):
    """The latents that the pictures of a Request would be decoded from, (N, h, w, c) on the host."""
    return _finish(pipe, request, progress, None, to_host)


def _finish(pipe, request, progress, mixing, finish, at_once=None):
    """finish(latents) of all that is drawn, a host array for some of the pictures, joined."""
    h, w, _ = request.shape
    count = len(request.prompts)
    at_once = at_once or planning.pictures_at_once(pipe.device, h, w, count)
    guidance = encode(pipe, request)
    generators = [image_generators(seed, 1)[0] for seed in request.seeds]

    def draw_rows(start):
        rows = slice(start, start + at_once)
        given, some = request.latents, generators[rows]
        noise = standard_normal(some, request.shape) if given is None else given[rows]
        mix, late = mixing(rows, noise) if mixing else None, request.start.of(rows)
        for z in draw_latents(pipe, request, guidance.of(rows), noise, some, mix, late, start):
            bar.update(len(z))
        return finish(z)

    # The bar waits a second, so that quick work and refusals leave stderr clean.
    with (
        tqdm(total=count * (request.steps - request.start.skip), unit="step", delay=1, disable=not progress) as bar,
        planning.workers(pipe.device, h, w) as workers,
    ):
        drawn = np.concatenate(list(workers(draw_rows, range(0, count, at_once))))
    if not np.isfinite(drawn).all():
        wider = "float32, " if pipe.dtype == np.float16 else ""
        remedies = f"{wider}less guidance, latents of unit variance, or other weights"
        raise UserError(f"the model gave values that are no numbers in {pipe.dtype}: try {remedies}")
    return drawn
