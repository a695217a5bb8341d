"""What the losses of a training say of it, by themselves and beside those of trainings that went well."""

import math

import numpy as np

from minild.checkpoints import STAGES
from minild.training.autoencoder import SQUARED
from minild.training.conditioning import EARLY
from minild.training.doctor_finding import Finding, number
from minild.training.doctor_known import SLACK, known
from minild.training.watch import CollapseWatch

TOO_HIGH, TOO_LOW, NOTHING = "learning rate too high", "learning rate too low", "nothing is learned"
WARM_UP = 0.06  # the share of a stage, twice the warm-up of its learning rate, before which no curve is judged
FIRST = {STAGES[0]: 60, STAGES[1]: 100}  # the step before which none is judged
OTHER = 3.0  # times the preset's learning rate, or one in so many: another one
SUSPECT = 1.5  # times the usual loss, which are enough where there are signs besides
UNMOVED = 0.8  # of the loss at the beginning: hardly moved
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
        self.rate = getattr(record.preset, stage).learning_rate
        self.known = known(record, stage)
        self.usual_rate = self.known.rate if self.known else getattr(record.own, stage).learning_rate

    @property
    def silent(self):
        """The loss where nothing is learned: of a U-Net that says nothing, of an autoencoder at its beginning."""
        if self.stage == STAGES[0]:
            return float(self.loss[0])
        return 2.0 if self.record.preset.objective == "flow" else 1.0

    @property
    def other_rate(self):
        """What there is to say of a learning rate that is not the usual one, nor near it; None else."""
        if self.usual_rate / OTHER < self.rate < OTHER * self.usual_rate:
            return None
        return f"its learning rate is {self.rate:.2g}, where {self.usual_rate:.2g} is usual"

    @property
    def last(self):
        """The mean loss of the last tenth, of three looks at least."""
        return float(self.loss[-max(3, len(self.loss) // 10) :].mean())

    @property
    def usual(self):
        """The loss that is usual at the last step; None where no table knows it."""
        return self.known.at(self.steps[-1], self.progress[-1]) if self.known and len(self.steps) else None

    @property
    def too_early(self):
        """Whether it is too early to judge the curve."""
        return not len(self.steps) or self.steps[-1] < FIRST[self.stage] or self.progress[-1] < WARM_UP

    def behind(self, times=None):
        """Whether the loss is so many times what is usual by now, the table's slack if none is named; where no table
        knows that, whether it has hardly moved. False while it is too early to say.
        """
        if self.too_early:
            return False
        if self.known is None:
            return self.last > UNMOVED * self.silent
        widened = self.known.slack / SLACK
        return self.last > (self.known.slack if times is None else times * widened) * self.usual

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
        again = f"go on from what was saved last ({record.resume()}); if it stops there again, {_lower(course)}"
        return [Finding(TOO_HIGH, diverged, again)]
    behind = course.behind(SUSPECT)
    if len(course.jumps) >= OFTEN or (high and behind):
        return [Finding(TOO_HIGH, _sentence(course, [*high, *([_far_off(course)] if behind else [])]), _lower(course))]
    if not course.behind():
        return []
    usual, seen = course.usual_rate, [_far_off(course), *_straight(course)]
    seen += [course.other_rate] if course.other_rate else []
    if course.rate >= OTHER * usual:
        return [Finding(TOO_HIGH, _sentence(course, seen), _lower(course))]
    if course.known is None and course.rate > usual / OTHER:  # and the usual one is that of something else
        advice = f"{_anew(course, course.rate / 10)}, and with one of {10 * course.rate:.2g}"
        return [Finding(NOTHING, _sentence(course, seen), advice)]
    wanted = usual if course.rate <= usual / OTHER else OTHER * course.rate
    return [Finding(TOO_LOW, _sentence(course, seen), _anew(course, wanted))]


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
    usual, rate = course.usual_rate, course.rate
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
    seen = f"{_far_off(course)}: so little is left to guess only where pictures are known by heart, or hardly differ"
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
