"""What a training says after its first steps: how long it takes on this machine, and what a limit leaves of it."""

import sys

from tqdm import tqdm

from minild.checkpoints import STAGES
from minild.training.presets import preset_for

WARM, TIMED = 3, 20  # steps that are passed over; steps that are timed after them
# {data set: {steps of stage two: the share of 512 held-out captions that `minild evaluate` found followed}}, of the
# trainings of the shipped pipelines (data/pretrained/README.md).
FOLLOWED = {"shapes": {5000: 0.943}, "scenes": {5800: 0.988}}


class Foretelling:
    """Says on stderr what to expect, once in a training, when it is known how long a step takes.

    preset, state: the training's. Where the preset does not count its steps, nothing is said.
    """

    def __init__(self, preset, state):
        self.preset, self.state = preset, state
        self.said = False

    def over(self, steps, budget):
        """Yield the steps of a stage (stage.run_stage), whose Budget is given. One that ends too soon says nothing, and
        leaves it to the next.
        """
        first = budget.taken
        for step, losses in steps:
            if not self.said and step - first in (WARM, WARM + TIMED):
                float(losses["loss"])  # a device is waited for
                if step - first == WARM:
                    began = budget.elapsed
                else:
                    self._say((budget.elapsed - began) / TIMED)
            yield step, losses

    def _say(self, seconds):
        self.said = True
        if text := expectation(seconds, self.preset, self.state):
            tqdm.write(f"minild: {text}", file=sys.stderr)  # above the bar


def expectation(seconds, preset, state):
    """How long a training takes, or at a resume what is left of it, in words, if a step of the stage that it is in
    takes so many seconds; None where the preset does not count its steps, or gives that stage no time.

    Of the other stage the preset knows how long a step takes beside this one's: autoencoder_share says it.
    """
    counts = {stage: getattr(preset, stage).steps for stage in STAGES}
    share = dict(zip(STAGES, (preset.autoencoder_share, 1 - preset.autoencoder_share)))
    if None in counts.values() or share[state["stage"]] <= 0:
        return None
    cost = {stage: share[stage] / counts[stage] for stage in STAGES}  # of a step, in shares of the whole
    left = {stage: (state["steps"] or counts[stage]) - state["taken"][stage] for stage in STAGES}
    whole = seconds / cost[state["stage"]]  # of the preset's own steps
    stages = STAGES[STAGES.index(state["stage"]) :]
    needed = sum(left[stage] * cost[stage] for stage in stages) * whole
    what = "what is left of the training" if any(state["taken"].values()) else "the whole training"
    text = f"a step takes {seconds:.2g} s on this machine, {what} about {duration(needed)}"
    given = needed if state["minutes"] is None else 60 * state["minutes"] - sum(state["elapsed"].values())
    left_for = max(0, given) / needed if given < needed else 1.0
    if left_for < 1:
        text += f": --minutes {state['minutes']:g} leaves time for about {int(100 * left_for)}% of its steps"
    learnt = state["taken"][STAGES[1]] + left_for * left[STAGES[1]]
    return text + _followed(preset, state, learnt)


def _followed(preset, state, learnt):
    """How many captions a training of at most so many steps of stage two has followed, in words; "" where none so
    short, or none of that preset and size, was tried.
    """
    usual = preset_for(state["dataset"])
    tried = FOLLOWED.get(state["dataset"], {}) if (preset, state["size"]) == (usual, usual.size) else {}
    steps = max((steps for steps in tried if steps <= learnt), default=None)
    return "" if steps is None else f"; with {steps:,} steps of stage two, {tried[steps]:.0%} of captions were followed"


def duration(seconds):
    """In words: "40 seconds", "7 minutes", "2.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{round(seconds / 3600, 1):g} hours"
