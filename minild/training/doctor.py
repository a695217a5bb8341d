"""What ails a training, if anything does: `minild doctor`.

    for finding in examine("runs/mine"):
        print(finding.name, finding.seen, finding.advice)

What is asked most often of a training of diffusion is whether noise, for pictures, is normal so far. Most often it is.
The curves are held against those of trainings that went well (doctor_curves.py); the weights are tried on some of the
training's own pictures (doctor_weights.py).
"""

import math
from typing import NamedTuple

from minild.checkpoints import STAGES
from minild.pipelines.conditions import condition_kinds
from minild.training.conditioning import EARLY
from minild.training.doctor_curves import Course, ailments
from minild.training.doctor_finding import WELL, Finding, number
from minild.training.doctor_known import why_unknown
from minild.training.doctor_record import how_far, read_training
from minild.training.doctor_weights import look_at

__all__ = ["Finding", "diagnose", "examine", "how_far", "read_training"]


class Reached(NamedTuple):
    """What an autoencoder came to: PSNR in dB, SSIM, after how many steps."""

    psnr: float
    ssim: float
    steps: int


# By the regularisation, and how many numbers of a picture there are to one of its latent.
REACHED = {
    ("kl", 4): Reached(31.6, None, 790),  # emoji of 64 x 64, f = 2, 3 channels (python -m tests.benchmarks.tables)
    ("kl", 6): Reached(33.1, 0.955, 9162),  # data/pretrained/emoji
    ("kl", 12): Reached(33.8, 0.955, 5347),  # data/pretrained/shapes
    ("kl", 24): Reached(29.2, None, 1430),  # emoji of 64 x 64, f = 8, 8 channels, by Muon (the same tables)
    ("vq", 4): Reached(28.8, None, 720),  # emoji of 64 x 64, f = 2 (the same tables)
}
SHARP, SHORT_OF = 25.0, 1.5  # dB: not blurred, at least; how much less than another of the kind is blurred
UNIT = (0.8, 1.25)  # the standard deviation of latents as stage two sees them
IGNORED, LISTENS_BY = 1.02, 500  # captions of others that cost less hardly count; steps before which they need not
BEHIND = 1.5  # times the loss of the weights: a moving average that is far behind them
CALM = 1.2  # the standard deviation, at most, of drawn latents that nothing ails
MEMORISED = 1.5  # times the loss on pictures of the training: that on others
FEW = 4  # a training of less than one in so many of the usual steps is short: a sixth of them, 600, gave shapes' models
# 89 % of the colours, but 14 % of all that the captions say
ON_SHEETS = (  # what sample sheets show from which share of stage two on (README, "What to expect")
    (0.0, "noise, grey or blots"),
    (0.1, "coloured blobs, some in the right place"),
    (EARLY, "the right colours in the right places, shapes unclear"),
    (0.9, "what the caption says"),
)


def examine(folder, progress=False):
    """What is seen in a training's folder, running, stopped or ended -> a list of Finding, most important first.

    There is always one: WELL where nothing is wrong. Nothing in the folder is changed. progress: show a bar on stderr
    once it takes longer than a second. UserError where the folder holds no training of a pipeline.
    """
    return diagnose(read_training(folder), progress)


def diagnose(record, progress=False):
    """The findings of a doctor_record.Record, as `examine` has them."""
    look, missing = look_at(record, progress)
    one, two = (ailments(Course(record, stage)) for stage in STAGES)
    found = [*one, *two]
    if look:  # of what the curves have told already, the weights show no more than the consequences
        signs = [_badly_scaled] if one else [_badly_scaled, _blurred]
        signs += [] if two else [_captions_ignored, _memorised, _average_behind]
        found += [finding for finding in (sign(record, look) for sign in [*signs, _too_much_guidance]) if finding]
    found += [] if one or two else _too_early(record)
    if missing and record.state["stage"] == STAGES[1]:
        found.append(Finding("not measured", f"the weights were not looked at: {missing}", "mend that, and look again"))
    return [*(found or [_well(record, look)]), *_no_curve(record)]


def _badly_scaled(record, look):
    seen = look.deviation * look.scaling_factor
    if UNIT[0] <= seen <= UNIT[1]:
        return None
    factor = f"scaling_factor {number(look.scaling_factor)} in vae/config.json"
    return Finding(
        "latents badly scaled",
        f"the latents' standard deviation is {number(look.deviation)}, with the {factor} {number(seen)}: stage two and "
        "its noise expect 1",
        f"set scaling_factor to {number(1 / look.deviation)} in vae/config.json, and train stage two anew: begin with "
        f"--first-stage {record.folder} in another folder",
    )


def _blurred(record, look):
    kind, ratio = look.regularisation, look.compression
    reached = REACHED[min(REACHED, key=lambda key: (key[0] != kind, abs(math.log(key[1] / ratio))))]
    if look.psnr >= min(SHARP, reached.psnr - SHORT_OF):
        return None
    taken = record.state["taken"][STAGES[0]]
    likeness = "" if look.ssim is None else f", SSIM {look.ssim:.2f}"
    seen = (
        f"the autoencoder rebuilds pictures of its training at {look.psnr:.1f} dB{likeness}, and all that is drawn is "
        f"as blurred; one like it reached {reached.psnr:g} dB in {reached.steps:,} steps"
    )
    few = taken and taken < reached.steps / 2
    more = "more latent_channels, or a smaller f (fewer channels in the preset)"
    advice = f"more steps for stage one, which took {taken:,}: begin anew with more time" if few else more
    return Finding("autoencoder too blurred", seen, advice)


def _captions_ignored(record, look):
    losses, what = look.losses, _leads(record)
    if losses is None or record.step < LISTENS_BY or record.progress < EARLY:
        return None
    if losses.others is None:
        seen = f"all {what} that were looked at are the same, so that there is nothing to follow"
        return Finding(f"{what} ignored", seen, f"give the pictures {what} that tell them apart")
    if losses.others > IGNORED * losses.true:
        return None
    seen = (
        f"at {losses.level:.0%} of the noise the U-Net's loss is {number(losses.true)} with the true {what}, "
        f"{number(losses.nothing)} with none and {number(losses.others)} with those of other pictures; a model that "
        "follows them pays twice as much for those, and more"
    )
    advice = (
        f"look whether the {what} belong to their pictures, and say what is on them; if they do, more steps: "
        f"{record.resume(2 * record.step)}"
    )
    return Finding(f"{what} ignored", seen, advice)


def _memorised(record, look):
    if look.unseen is None or look.unseen < MEMORISED * look.losses.mean:
        return None
    seen = (
        f"the U-Net's loss is {number(look.losses.mean)} on pictures of its training and {number(look.unseen)} on "
        "pictures of the test, which it has not seen: it knows its own by heart, and draws them again"
    )
    return Finding("pictures memorised", seen, "give it more pictures, and more different ones, or stop sooner")


def _leads(record):
    """What leads the model, in words."""
    return {"text": "captions", "class": "classes"}.get(condition_kinds(record.preset.condition)[0], "conditions")


def _too_much_guidance(record, look):
    drawn = look.drawn
    if drawn is None or drawn.unguided > CALM:
        return None
    return Finding(
        "guidance too strong",
        f"with guidance {drawn.scale:g}, the model's own, the latents that it draws have the standard deviation "
        f"{number(drawn.guided)}, so that colours burn out; without they have {number(drawn.unguided)}, and 1 is right",
        f"draw with less: --guidance {number(1 + (drawn.scale - 1) / 3)}; a young model bears less than an old one",
    )


def _average_behind(record, look):
    lag = look.lag
    if lag is None or lag.average < BEHIND * lag.weights:
        return None
    return Finding(
        "moving average behind",
        f"the weights have the loss {number(lag.weights)}, their moving average, which is saved and drawn with, "
        f"{number(lag.average)}; they are {lag.distance:.0%} apart",
        f"go on: the average follows over the last tenth of a training ({record.resume(2 * max(1, record.step))})",
    )


def _too_early(record):
    """A Finding, in a list, on a training that has not come far enough to say more of it, or ended too soon."""
    course, of = Course(record, record.stage), f" of {record.planned:,}" if record.planned else ""
    more = f"go on to more: {record.resume(record.usual_steps)}"
    other = f"; {course.other_rate}" if course.other_rate else ""
    if record.ended and not record.step:
        return [Finding("too few steps", "stage two had no time for a step", more)]
    if record.stage == STAGES[0] or not record.step:
        seen = f"stage two, in which noise becomes pictures, has not begun{other}"
        return [Finding("too early to tell", seen, _wait(record))]
    if record.progress >= EARLY:
        if record.planned >= record.usual_steps / FEW:
            return []
        seen = f"stage two {'ended' if record.ended else 'ends'} after {record.planned:,} steps, where "
        seen += f"{record.usual_steps:,} are usual{other}"
        return [Finding("too few steps", seen, more)]
    reached = min(record.progress, record.step / record.usual_steps)
    shown = [what for share, what in ON_SHEETS if share <= reached][-1]
    seen = (
        f"step {record.step:,}{of} of stage two: at this point it is normal that the sample sheets show {shown}; what "
        f"the caption says comes towards the end{other}"
    )
    return [Finding("too early to tell", seen, _wait(record))]


def _no_curve(record):
    """A Finding, in a list, on a stage whose curve can't be held against any."""
    course = Course(record, record.stage)
    why = why_unknown(record, record.stage)
    if course.too_early or not why:
        return []
    seen = f"{course.title}: {why}, so that the loss, {number(course.last)}, cannot be called usual or unusual"
    sheet = f", {record.sheet}" if record.sheet else ", once it is there"
    return [Finding("no curve to compare with", seen, f"look at the newest sheet{sheet}")]


def _wait(record):
    """What to do while there is nothing to mend."""
    if record.ended:
        return f'draw: minild txt2img "..." --model {record.folder}'
    sheet = f"; the newest sheet is {record.sheet}" if record.sheet else ""
    return f"{'wait' if record.runs else f'go on: {record.resume()}'}{sheet}"


def _well(record, look):
    """What there is to say where nothing else is."""
    course = Course(record, record.stage)
    of = f" of {record.planned:,}" if record.planned and not record.ended else ""
    seen = [f"{record.step:,}{of} steps of stage two are done"]
    if course.curve.rows:
        usual = "" if course.usual is None else f", where {number(course.usual)} is usual"
        seen.append(f"the loss is {number(course.last)}{usual}")
    if look:
        seen.append(f"the autoencoder rebuilds pictures at {look.psnr:.1f} dB")
    if look and look.losses and look.losses.others:
        times = look.losses.others / look.losses.true
        seen.append(f"with the {_leads(record)} of other pictures it is up to {times:.2g} times as large")
    return Finding(WELL, "; ".join(seen), _wait(record))
