"""Losses of trainings that went well, for `minild doctor` to hold another one's beside; and of which it knows none.

Each table was noted by a training that was run, as its `source` says. Steps are the abscissa, for minutes are those of
one machine. The losses of AdamW and of Muon differ, and so do those of other models and objectives: a training that
differs in more than its learning rate from those here has no table.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from minild.checkpoints import STAGES
from minild.training.conditioning import EARLY
from minild.training.doctor_record import plain
from minild.training.presets import PRESETS, preset_for

SLACK, WIDE = 2.5, 5.0  # how many times the usual loss is far behind; where the pictures are not those of the table


class Known(NamedTuple):
    """How the loss fell: {step: mean of what was noted within a tenth of it}.

    rate    the learning rate at its peak
    losses  of stage two while noise is mostly high (conditioning.EARLY); `late` afterwards
    slack   how many times as large a loss has to be before it is far behind
    """

    source: str
    rate: float
    losses: dict
    late: dict | None = None
    slack: float = SLACK

    def at(self, step, progress):
        """The loss noted at a step, a mean of those before it, on a straight line of logarithms between those of the
        table; beyond them, the last.
        """
        steps, losses = zip(*(self.late if self.late and progress > EARLY else self.losses).items())
        return math.exp(np.interp(math.log(max(1, step)), np.log(steps), np.log(losses)))


ONE, TWO = STAGES
KNOWN = {  # (stage, data set, optimiser): of stage one |x̂ - x| + SQUARED (x̂ - x)² alone, whatever a preset adds to it
    (ONE, "shapes", "adamw"): Known(
        "shapes with AdamW, 600 steps, of 2,048 pictures; at 1,200, chapter 5, which comes to 26.7 dB",
        1.5e-3,
        {10: 2.9, 20: 1.5, 30: 0.97, 60: 0.61, 100: 0.49, 200: 0.32, 300: 0.27, 400: 0.22, 600: 0.18, 1200: 0.076},
    ),
    (ONE, "emoji", "adamw"): Known(
        "`minild train emoji --steps 400`",
        1.5e-3,
        {10: 3.1, 20: 1.1, 30: 0.92, 60: 0.65, 100: 0.42, 200: 0.31, 300: 0.25, 400: 0.23},
    ),
    (ONE, "shapes", "muon"): Known(
        "`minild train shapes`, which comes to 38.4 dB",
        1.5e-3,
        {10: 4.3, 20: 3.7, 30: 3.2, 40: 2.4, 50: 1.8, 60: 1.4, 70: 1.1, 100: 0.55, 150: 0.28, 200: 0.22, 300: 0.14,
         400: 0.11, 600: 0.077, 900: 0.057, 1300: 0.043, 1800: 0.033, 2500: 0.026, 3500: 0.018, 5300: 0.014},
    ),
    (ONE, "scenes", "muon"): Known(
        "emoji of 64 x 64, f = 8, 8 latent channels: `python -m tests.benchmarks.tables losses`",
        1.5e-3,
        {10: 3.8, 20: 1.0, 30: 0.70, 60: 0.48, 100: 0.34, 200: 0.22, 300: 0.16, 500: 0.13, 700: 0.098, 1000: 0.075,
         1400: 0.062},
        slack=WIDE,
    ),
    (TWO, "shapes", "adamw"): Known(
        "shapes with AdamW and a KL weight of 1e-4, 600 steps of 64, of 4,096 pictures; at 3,532, a longer one",
        1.5e-3,
        {10: 0.94, 20: 0.57, 30: 0.22, 60: 0.092, 100: 0.072, 150: 0.060, 180: 0.057},
        {200: 0.12, 250: 0.11, 300: 0.096, 400: 0.083, 500: 0.074, 600: 0.071, 3532: 0.035},
    ),
    (TWO, "shapes", "muon"): Known(
        "`minild train shapes`; `late` before step 1,000: 250 steps of 64 pictures, with a KL weight of 1e-4",
        2e-3,
        {10: 0.99, 20: 0.98, 30: 0.94, 40: 0.88, 50: 0.79, 60: 0.70, 70: 0.58, 100: 0.28, 150: 0.13, 200: 0.11,
         300: 0.089, 400: 0.077, 600: 0.069, 900: 0.059, 1300: 0.052},
        {100: 0.15, 120: 0.13, 150: 0.12, 200: 0.10, 1000: 0.095, 1600: 0.085, 1800: 0.088, 2000: 0.085, 2500: 0.075,
         3000: 0.069, 3500: 0.062, 4000: 0.059, 5000: 0.055},
    ),
    (TWO, "emoji", "adamw"): Known(
        "`minild train emoji --first-stage emoji --steps 500`; at 8,540, the shipped emoji's",
        1e-3,
        {10: 0.97, 20: 0.75, 30: 0.45, 60: 0.17, 100: 0.12, 150: 0.11},
        {180: 0.19, 250: 0.18, 300: 0.17, 400: 0.16, 500: 0.15, 8540: 0.033},
    ),
}  # fmt: skip
FIELDS = {  # of a preset, that decide how the loss of a stage falls
    ONE: ("size", "channels", "latent_channels", "regularisation", "kl_weight"),
    TWO: ("size", "channels", "latent_channels", "regularisation", "unet_channels", "attends", "layers_per_block",
          "heads", "text_width", "text_layers", "text_encoder", "noisy_end", "min_snr", "offset_noise", "objective",
          "times", "condition", "schedule", "kl_weight", "posterior"),
}  # fmt: skip


def known(record, stage):
    """The Known for a stage of a doctor_record.Record; None where there is none."""
    return None if why_unknown(record, stage) else _table(record, stage)


def why_unknown(record, stage):
    """Why there is no Known for a stage, in words; None where there is one."""
    name = record.state["dataset"]
    of = name if name in PRESETS else "pictures of your own"
    preset = plain(dataclasses.replace(record.preset, size=record.state["size"]))
    usual = plain(preset_for(name))
    theirs = {"batch_size": usual[stage]["batch_size"]} | {field: usual[field] for field in FIELDS[stage]}
    ours = {"batch_size": preset[stage]["batch_size"]} | {field: preset[field] for field in FIELDS[stage]}
    optimizer = preset[stage]["optimizer"]
    table = _table(record, stage)
    others = sorted(other for at, data, other in KNOWN if (at, data) == (stage, _like(name)))
    if not others:
        return f"no curve of {of} is known"
    told = [] if table else [f"the optimizer is {optimizer}, not {' or '.join(others)}"]
    told += [f"{field} is {ours[field]}, not {theirs[field]}" for field in ours if ours[field] != theirs[field]]
    return f"the known curves of {of} are of another preset: {'; '.join(told)}" if told else None


def _like(name):
    """The data set whose tables serve: a folder of pictures is trained as the emoji are."""
    return name if name in PRESETS else "emoji"


def _table(record, stage):
    name = record.state["dataset"]
    table = KNOWN.get((stage, _like(name), getattr(record.preset, stage).optimizer))
    return table._replace(slack=WIDE) if table and name not in PRESETS else table
