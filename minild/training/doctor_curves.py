"""What the losses of a training say of it, beside those of trainings that went well.

Steps are the abscissa: minutes are those of one machine. Each table was noted by a training that was run, as its
`source` says.
"""

import math
from typing import NamedTuple

import numpy as np

from minild.training.autoencoder import SQUARED
from minild.training.conditioning import EARLY
from minild.training.doctor_finding import Finding, number
from minild.training.doctor_record import USUAL_STEPS
from minild.training.optimizer import learning_rate_at
from minild.training.state import STAGES
from minild.training.watch import CollapseWatch


class Known(NamedTuple):
    """How the loss fell in a training that went well: {step: mean of what was noted within a tenth of it}."""

    source: str
    losses: dict

    def at(self, step):
        """The loss at a step, on a straight line of logarithms between those of the table; beyond them, the last."""
        steps, losses = zip(*self.losses.items())
        return math.exp(np.interp(math.log(max(1, step)), np.log(steps), np.log(losses)))


# Stage one: |x̂ - x| + SQUARED (x̂ - x)² alone, whatever a preset adds to it. None: of other sets, or other sizes.
REBUILDING = {
    "shapes": Known(
        "`minild train shapes --steps 600`, of 2,048 pictures; at 1,200, chapter 5, which comes to 26.7 dB",
        {10: 2.9, 20: 1.5, 30: 0.97, 60: 0.61, 100: 0.49, 200: 0.32, 300: 0.27, 400: 0.22, 600: 0.18, 1200: 0.076},
    ),
    "emoji": Known(
        "`minild train emoji --steps 400`",
        {10: 3.1, 20: 1.1, 30: 0.92, 60: 0.65, 100: 0.42, 200: 0.31, 300: 0.25, 400: 0.23},
    ),
    None: Known(
        "the slowest that went well: emoji of 64 x 64, f = 8, 8 latent channels, AdamW, which came to 25.9 dB",
        {10: 2.8, 20: 1.1, 50: 0.81, 100: 0.52, 200: 0.44, 300: 0.34, 500: 0.30, 700: 0.24, 1000: 0.18, 1500: 0.13,
         2000: 0.11},
    ),
}  # fmt: skip
# Stage two, of ε: while noise is mostly high (conditioning.EARLY), and later.
SHAPES = "`minild train shapes --first-stage shapes --steps 600`, of 4,096 pictures; at 3,532, the README's"
EMOJI = "`minild train emoji --first-stage emoji --steps 500`; at 8,540, the shipped emoji's"
EPSILON = {
    "shapes": (
        Known(SHAPES, {10: 0.94, 20: 0.57, 30: 0.22, 60: 0.092, 100: 0.072, 150: 0.060, 180: 0.057}),
        Known(SHAPES, {200: 0.12, 250: 0.11, 300: 0.096, 400: 0.083, 500: 0.074, 600: 0.071, 3532: 0.035}),
    ),
    "emoji": (
        Known(EMOJI, {10: 0.97, 20: 0.75, 30: 0.45, 60: 0.17, 100: 0.12, 150: 0.11}),
        Known(EMOJI, {180: 0.19, 250: 0.18, 300: 0.17, 400: 0.16, 500: 0.15, 8540: 0.033}),
    ),
}
TOO_HIGH = "learning rate too high"
WARM_UP = 0.06  # the share of a stage, twice the warm-up of its learning rate, before which no curve is judged
FIRST = {STAGES[0]: 60, STAGES[1]: 100}  # the step before which none is judged
OTHER = 3.0  # times the preset's learning rate, or one in so many: another one
SLACK, OWN_SLACK = 2.5, 5.0  # how many times the usual loss is far behind; of pictures that no table knows
SUSPECT = 1.5  # that are enough where there are signs besides
UNMOVED = 0.8  # of the loss of a U-Net that says nothing: hardly moved, for objectives without a table
BLOWN_UP = 50.0  # nats a number of the latents; 5 to 7 are usual, 12 were the most that a discriminator's start gave
GREY = 1.1  # a squared error above which a picture is rebuilt worse than by plain grey, whose own is 1 at most
WORSE = 9  # times the loss of a U-Net that says nothing
JUMP, BEFORE, OFTEN = 3.0, 10, 3  # times the median of so many looks before; so often that it tells of itself
BY_HEART = 5.0  # times less than the usual loss of stage two: only pictures that are known by heart have that
SAYS_NOTHING, BLURRED = 0.5, 0.025  # nats a number of a latent that says nothing; a squared error of 22 dB


class Course:
    """One stage of a doctor_record.Record as its curves show it."""

    def __init__(self, record, stage):
        self.record, self.stage, self.curve = record, stage, record.curves[stage]
        self.steps, self.progress = self.curve.column("step"), self.curve.column("progress")
        self.squared = self.curve.column("mse")
        self.loss = self.curve.column("loss")
        if stage == STAGES[0]:
            self.loss = self.curve.column("l1") + SQUARED * self.squared
        self.title = "stage one" if stage == STAGES[0] else "stage two"
        self.preset = getattr(record.preset, stage)
        self.silent = 2.0 if record.preset.objective == "flow" else 1.0  # the loss of a U-Net that says nothing

    @property
    def last(self):
        """The mean loss of the last tenth, of three looks at least."""
        return float(self.loss[-max(3, len(self.loss) // 10) :].mean())

    @property
    def usual(self):
        """The loss that is usual at the last step; None where no table knows it."""
        step, preset = self.steps[-1], self.record.preset
        if self.stage == STAGES[0]:
            own = self.record.state["size"] == preset.size
            return REBUILDING.get(self.record.state["dataset"] if own else None, REBUILDING[None]).at(step)
        if preset.objective != "epsilon":
            return None
        early, late = EPSILON.get(self.record.state["dataset"], EPSILON["emoji"])
        return (early if self.progress[-1] < EARLY else late).at(step)

    def behind(self, times=SLACK):
        """Whether the loss is so many times what is usual by now. False while it is too early to say."""
        if not len(self.steps) or self.steps[-1] < FIRST[self.stage] or self.progress[-1] < WARM_UP:
            return False
        if self.usual is None:
            return self.last > UNMOVED * self.silent
        own = self.record.state["dataset"] not in USUAL_STEPS
        return self.last > times * (OWN_SLACK / SLACK if own else 1) * self.usual

    @property
    def jumps(self):
        """The numbers of the looks at which the loss was JUMP times what it had been; the known step at EARLY is none.
        """
        found = []
        for i in range(3, len(self.loss)):
            begin = max(0, i - BEFORE)
            crosses = self.stage == STAGES[1] and self.progress[begin] < EARLY <= self.progress[i]
            if not crosses and self.loss[i] > JUMP * np.median(self.loss[begin:i]):
                found.append(i)
        return found

    @property
    def rate(self):
        """The learning rate at its peak, from what was noted of it; else the preset's."""
        noted, middle = self.curve.column("learning_rate"), self.progress - np.diff(self.progress, prepend=0) / 2
        within = (middle > WARM_UP) & (middle < 1 - WARM_UP) & np.isfinite(noted)
        if not within.any():
            return self.preset.learning_rate
        return float(np.median([rate / learning_rate_at(at, 1.0) for rate, at in zip(noted[within], middle[within])]))


def ailments(course):
    """Findings on what a Course shows: a learning rate too high or too low, and whatever has collapsed.

    What has collapsed learns slowly, too: that says nothing of a learning rate that is too low.
    """
    found = collapsed(course)
    rate = [finding for finding in learning_rate(course) if not found or finding.name == TOO_HIGH]
    return [*rate, *found]


def learning_rate(course):
    """Findings on a learning rate that is too high or too low, of a Course."""
    record, high = course.record, _signs_of_too_high(course)
    diverged = record.diverged if record.stage == course.stage else None
    if diverged:
        again = f"add --resume to go on from what was saved last; if it stops there again, {_lower(course)}"
        return [Finding(TOO_HIGH, diverged, again)]
    if len(course.jumps) >= OFTEN or (high and course.behind(SUSPECT)):
        behind = [_far_off(course)] if course.behind(SUSPECT) else []
        return [Finding(TOO_HIGH, _sentence(course, [*high, *behind]), _lower(course))]
    if not course.behind():
        return []
    usual = course.preset.learning_rate
    seen = [_far_off(course), *_straight(course)]
    if not usual / OTHER < course.rate < OTHER * usual:
        seen.append(f"its learning rate is {course.rate:.2g}, where {usual:.2g} is usual")
    if course.rate >= OTHER * usual:
        return [Finding(TOO_HIGH, _sentence(course, seen), _lower(course))]
    wanted = usual if course.rate <= usual / OTHER else OTHER * course.rate
    return [Finding("learning rate too low", _sentence(course, seen), _anew(course, wanted))]


def _signs_of_too_high(course):
    """What is only seen where a learning rate is too high, in words."""
    loss, jumps, signs = course.loss, course.jumps, []
    squared, nats = (course.curve.column(name).max(initial=0.0) for name in ("mse", "kl"))  # none in stage two: NaN
    if squared > GREY:
        signs.append(f"a squared error of {number(squared)}, where plain grey for a picture has 1 at most")
    if nats > BLOWN_UP:
        signs.append(f"the latents blew up: their KL term reached {number(nats)} nats a number, where 5 to 7 are usual")
    if course.stage == STAGES[1] and loss.max(initial=0.0) > WORSE * course.silent:
        signs.append(f"the loss reached {number(loss.max())}, where a U-Net that says nothing has {course.silent:g}")
    if jumps:
        i = max(jumps, key=lambda i: loss[i])
        often = f", {len(jumps)} times in all" if len(jumps) > 1 else ""
        signs.append(f"the loss jumped to {number(loss[i])} at step {course.steps[i]:,.0f}{often}")
    norms = course.curve.column("gradient_norm")
    if signs and np.isfinite(norms).any():
        norms = norms[np.isfinite(norms)]
        signs.append(f"the gradient's norm was {number(np.median(norms))}, at most {number(norms.max())}")
    return signs


def _far_off(course):
    usual = f", where {number(course.usual)} is usual" if course.usual is not None else ", as at its beginning"
    return f"after {course.steps[-1]:,.0f} steps the loss is {number(course.last)}{usual}"


def _straight(course):
    """What there is to say of the last two thirds of a curve that falls in a straight line, or hardly at all."""
    third = len(course.loss) // 3
    if third < 3:
        return []
    parts = [np.log(course.loss[i * third : (i + 1) * third]).mean() for i in range(3)]
    first, second = (1 - math.exp(change) for change in np.diff(parts))
    return [f"from third to third it fell by {first:.0%} and {second:.0%}"]


def _lower(course):
    usual, rate = course.preset.learning_rate, course.rate
    return _anew(course, usual if rate >= OTHER * usual else rate / OTHER)


def _anew(course, wanted):
    return f"begin anew with a learning rate of {wanted:.2g} in {course.title}, in place of {course.rate:.2g}"


def _sentence(course, seen):
    return f"{course.title}: {'; '.join(seen)}"



def collapsed(course):
    """Findings on a loss, latents, a codebook or a discriminator that has collapsed, of a Course."""
    if not course.curve.rows:
        return []
    signs = _loss_collapsed, _latents_collapsed, _codebook_collapsed, _discriminator_collapsed
    return [finding for finding in (sign(course) for sign in signs) if finding]


def _loss_collapsed(course):
    if course.stage == STAGES[0] or course.usual is None or course.progress[-1] < EARLY:
        return None
    if course.last > course.usual / BY_HEART:
        return None
    seen = f"{_far_off(course)}: so little is left to guess only where the pictures are known by heart"
    advice = "give it more pictures, and more different ones: it draws none but those that it has"
    return Finding("loss collapsed", _sentence(course, [seen]), advice)


def _latents_collapsed(course):
    nats, squared = course.curve.column("kl")[-3:].mean(), course.squared[-3:].mean()
    if nats < SAYS_NOTHING and squared > BLURRED:
        seen = f"the latents say {number(nats)} nats a number, where 5 to 7 are usual: nothing can be rebuilt of them"
        weight = course.record.preset.kl_weight
        return Finding("latents collapsed", _sentence(course, [seen]), f"a smaller kl_weight; {weight:g} is usual")
    return None


def _codebook_collapsed(course):
    last = course.curve.rows[-1]
    if not last.get("codebook_collapsed"):
        return None
    seen = f"only {last['codebook_use']:.1%} of the codes are in use, their perplexity is {last['perplexity']:.0f}"
    advice = "let moving averages move the codes (codebook_moves=True), or take fewer codes or a larger commitment"
    return Finding("codebook collapsed", _sentence(course, [seen]), advice)


def _discriminator_collapsed(course):
    watch, words = CollapseWatch(), None
    for row in course.curve.rows:
        words = watch.note({name: row.get(name, 0.0) for name in ("discriminator", "real", "generated")}) or words
    if not watch.told:  # or no longer
        return None
    advice = "begin it later (adversarial_start), or give it less weight (adversarial_weight)"
    return Finding("discriminator collapsed", _sentence(course, [words]), advice)
