"""A training's folder as `minild doctor` reads it: what it was asked for, what it noted, and how far it is.

The training may have ended, been stopped, or still run: metrics.jsonl may end in half a line.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minild import pretrained
from minild.errors import UserError
from minild.training.presets import Preset, preset_for
from minild.training.state import FITS, STAGES, STATE

METRICS = "metrics.jsonl"
TITLES = dict(zip(STAGES, ("stage one, the autoencoder", "stage two, the U-Net")))
QUIET = 300.0  # seconds in which nothing was written, after which a training is taken for stopped
USUAL_STEPS = {  # of the shipped pipelines (README, "What to expect")
    "shapes": dict(zip(STAGES, (5347, 3532))),
    "emoji": dict(zip(STAGES, (9162, 8540))),
    "scenes": dict(zip(STAGES, (1825, 5805))),
}


class Curve(NamedTuple):
    """What metrics.jsonl holds of one stage: {name: number}, the means of ten steps, in the order of the steps."""

    rows: list

    def column(self, name):
        """The numbers of that name, (n,) float64; NaN where a row has none."""
        return np.array([row.get(name, np.nan) for row in self.rows], float)

    @property
    def last_step(self):
        """The last one noted, 0 for none."""
        return self.rows[-1]["step"] if self.rows else 0


@dataclass(frozen=True)
class Record:
    """One training.

    state     what state.json holds
    preset    that of its data set, with its choices; a preset given in Python leaves no trace in the folder
    curves    {stage: Curve}
    diverged  what the training said where its loss or gradient was no number any more, and it has not gone on; or None
    idle      seconds since anything was noted or saved
    """

    folder: Path
    state: dict
    preset: Preset
    curves: dict
    diverged: str | None
    idle: float

    @property
    def stage(self):
        """The stage that it is in, or was stopped in."""
        return STAGES[1] if self.curves[STAGES[1]].rows else self.state["stage"]

    @property
    def step(self):
        """The last step of that stage that is known of."""
        return max(self.curves[self.stage].last_step, self.state["taken"][self.stage])

    @property
    def progress(self):
        """The share of that stage that is over, in [0, 1]."""
        rows = self.curves[self.stage].rows
        noted = rows[-1]["progress"] if rows else 0.0
        if self.step > self.state["taken"][self.stage]:  # since the last save, and perhaps to another end
            return noted
        return max(noted, min(1.0, _saved_progress(self.state, self.stage)))

    @property
    def ended(self):
        """Whether both stages are over."""
        return self.stage == STAGES[1] and self.progress >= 1

    @property
    def planned(self):
        """How many steps that stage takes in all, about, if it goes by the clock; None while there is no telling."""
        if self.state["steps"] is not None:
            return self.state["steps"]
        return round(self.step / self.progress) if self.step and self.progress > 0 else None

    @property
    def runs(self):
        """Whether it seems to run: something was written a short while ago."""
        return self.idle < QUIET and not self.ended and not self.diverged

    @property
    def usual_steps(self):
        """How many steps that stage usually takes; a folder of pictures counts as the emoji, whose preset it has."""
        return USUAL_STEPS.get(self.state["dataset"], USUAL_STEPS["emoji"])[self.stage]

    def resume(self, steps=None):
        """The command that goes on, to so many steps of each stage."""
        more = f" --steps {steps}" if steps else ""
        return f"minild train {self.state['dataset']} --output {self.folder} --resume{more}"


def read_record(folder):
    """The Record of a folder that `minild train` writes. UserError where it holds no training, or state.json is broken.

    Lines of metrics.jsonl that are not whole are passed over; of steps that a resume took again, the last count.
    """
    folder = Path(folder)
    path = folder / "training" / STATE
    if not path.is_file():
        where = f": name {folder.parent}" if (folder / STATE).is_file() else ", which `minild train` writes"
        raise UserError(f"{folder} holds no training: expected a folder with training/{STATE}{where}")
    state = pretrained.read_json(path)
    state.setdefault("choices", {})  # older ones had none
    broken = [field for field, fits in FITS.items() if not fits(state.get(field))]
    if broken:
        raise UserError(f"{path} is no training's: {broken[0]!r} cannot be {state.get(broken[0])!r}")
    preset = preset_for(state["dataset"]).choose(**state["choices"])
    metrics = folder / "training" / METRICS
    lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines() if metrics.is_file() else []
    entries = [entry for entry in map(_entry, lines) if entry]
    curves = {stage: Curve(_rows(entries, stage, state, preset)) for stage in STAGES}
    last = next((entry for entry in reversed(entries) if "warning" not in entry), {})
    idle = time.time() - max(file.stat().st_mtime for file in (path, metrics) if file.is_file())
    return Record(folder, state, preset, curves, last.get("diverged"), idle)


def _entry(line):
    """What a whole line of metrics.jsonl holds; None for any other."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(entry, dict) and entry.get("stage") in STAGES and isinstance(entry.get("step"), int)
    return entry if fits else None


def _rows(entries, stage, state, preset):
    rows = []
    for entry in entries:
        if entry["stage"] == stage and isinstance(entry.get("loss"), float):
            while rows and rows[-1]["step"] >= entry["step"]:
                rows.pop()
            rows.append({"progress": _noted_progress(entry, state, preset), **entry})
    return rows


def _noted_progress(entry, state, preset):
    """That of an entry that does not say it itself, as older ones do not."""
    if state["steps"] is not None:
        return min(1.0, entry["step"] / max(1, state["steps"]))
    whole = 60 * (state["minutes"] or preset.minutes)
    first = whole * preset.autoencoder_share
    seconds = first if entry["stage"] == STAGES[0] else whole - state["elapsed"][STAGES[0]]
    return min(1.0, entry.get("seconds", 0.0) / max(1e-9, seconds))


def _saved_progress(state, stage):
    """The share of a stage that was over when it was last saved; stage one by the clock says nothing of that."""
    if state["steps"] is not None:
        return state["taken"][stage] / max(1, state["steps"])
    if stage == STAGES[0] or state["minutes"] is None:
        return 0.0
    return state["elapsed"][stage] / max(1e-9, 60 * state["minutes"] - state["elapsed"][STAGES[0]])


def how_far(record):
    """In words: "stage two, the U-Net, step 1,200 of 3,532 (34 %); it runs"."""
    if record.ended:
        return f"it has ended, after {record.step:,} steps of stage two"
    about = "about " if record.state["steps"] is None else ""
    of = f" of {about}{record.planned:,} ({100 * record.progress:.0f} %)" if record.planned else ""
    now = "it diverged" if record.diverged else "it runs"
    if not (record.runs or record.diverged):
        hours = record.idle / 3600
        now = f"nothing was written for {f'{hours:,.0f} hours' if hours > 2 else f'{60 * hours:.0f} minutes'}"
    return f"{TITLES[record.stage]}, step {record.step:,}{of}; {now}"
