"""A training's folder as `minild doctor` reads it: what it was asked for, what it noted, and how far it is.

The training may have ended, been stopped, or still run: metrics.jsonl may end in half a line, and saves come and go.
Nothing is written, and no lock is taken.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minild import checkpoints, pretrained
from minild.checkpoints import FOLDER, STAGES
from minild.errors import UserError
from minild.pipelines.folder import INDEX, RECORD, condition_of, read_record
from minild.reading import parse_json, usable
from minild.training.budget import share
from minild.training.expectation import duration
from minild.training.first_stage import fitted
from minild.training.journal import metrics_lines
from minild.training.presets import Preset, preset_for, told_preset
from minild.training.state import FITS, first_state

METRICS = "metrics.jsonl"
TITLES = dict(zip(STAGES, ("stage one, the autoencoder", "stage two, the U-Net")))
QUIET = 300.0  # seconds in which nothing was written, after which a training is taken for stopped
TRIES = 3  # a save that is read may be removed meanwhile: a newer one is then there


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

    state     what state.json of the newest save holds; of a pipeline without a training, the same from minild.json
    saved     that save, a checkpoints.Checkpoint; None without
    preset    what is trained with; that of the data set where an older training does not say
    curves    {stage: Curve}
    diverged  what the training said where its loss or gradient was no number any more, and it has not gone on; or None
    idle      seconds since anything was noted or saved
    """

    folder: Path
    state: dict
    saved: checkpoints.Checkpoint | None
    preset: Preset
    curves: dict
    diverged: str | None
    idle: float

    @property
    def own(self):
        """The preset that `minild train` takes, with the choices of the training."""
        return _fitted(preset_for(self.state["dataset"]).choose(**self.state["choices"]), self.folder)

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
        return max(noted, _saved_progress(self.state, self.stage, self.preset))

    @property
    def ended(self):
        """Whether both stages are over."""
        return self.stage == STAGES[1] and self.progress >= 1

    @property
    def by_clock(self):
        """Whether the clock may end that stage."""
        end = self.preset.end(self.stage, self.state)
        return end["seconds"] is not None or end["steps"] is None

    @property
    def planned(self):
        """How many steps that stage takes in all, about, if it goes by the clock; None while there is no telling."""
        if not self.by_clock:
            return self.preset.end(self.stage, self.state)["steps"]
        return round(self.step / self.progress) if self.step and self.progress > 0 else None

    @property
    def runs(self):
        """Whether it seems to run: something was written a short while ago."""
        return self.idle < QUIET and not self.ended and not self.diverged

    @property
    def usual_steps(self):
        """How many steps that stage usually takes; a folder of pictures counts as the emoji, whose preset it has."""
        return getattr(preset_for(self.state["dataset"]), self.stage).steps

    @property
    def sheet(self):
        """The name of the newest sample sheet; None while there is none."""
        sheets = [path for stage in STAGES for path in (self.folder / FOLDER).glob(f"{stage}-*.png")]
        order = {path: (STAGES.index(path.name.split("-")[0]), path.name) for path in sheets}
        return f"{FOLDER}/{max(sheets, key=order.get).name}" if sheets else None

    def resume(self, steps=None):
        """The command that goes on, to so many steps of each stage."""
        more = f" --steps {steps}" if steps else ""
        return f"minild train {self.state['dataset']} --output {self.folder} --resume{more}"


def read_training(folder):
    """The Record of a folder that `minild train` writes. UserError where it holds no pipeline's training, or the state
    is broken.

    Lines of metrics.jsonl that are not whole are passed over; of steps that a resume took again, the last count.
    """
    folder = Path(folder)
    metrics = folder / FOLDER / METRICS
    try:
        saved = _newest(folder)
        entries = _entries(metrics)
        _refuse_others(folder, saved, entries)
        state = dict(saved.state) if saved else _finished(folder)
        state.setdefault("choices", {})  # older ones had none
        origin = saved.folder / checkpoints.STATE if saved else folder / RECORD
        broken = [field for field, fits in FITS.items() if not fits(state.get(field))]
        if broken:
            raise UserError(f"{origin} is no training's: {broken[0]!r} cannot be {state.get(broken[0])!r}")
        preset = told_preset(state, origin, preset_for(state["dataset"]))
        with usable(folder):
            preset = _fitted(preset, folder)
        written = [path.stat().st_mtime for path in (origin, metrics) if path.is_file()]
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror or error}") from None
    curves = {stage: Curve(_rows(entries, stage, state, preset)) for stage in STAGES}
    last = next((entry for entry in reversed(entries) if "warning" not in entry), {})
    diverged = last.get("diverged") if saved else None
    return Record(folder, state, saved, preset, curves, diverged, time.time() - max(written, default=time.time()))


def _newest(folder):
    """The newest Checkpoint, None where nothing was saved."""
    for _ in range(TRIES - 1):
        try:
            return checkpoints.newest(folder)
        except UserError:  # the training that runs has removed it
            continue
    return checkpoints.newest(folder)


def _refuse_others(folder, saved, entries):
    """UserError, in a line that says what there is, for a folder that is no pipeline and no training of one."""
    if saved:
        return
    is_pipeline = (folder / INDEX).is_file()
    noted = entries or _entries(folder / METRICS)
    stages = {entry["stage"] for entry in noted} - set(STAGES)
    if stages and not is_pipeline:
        raise UserError(f"{folder} holds the training of a {min(stages)}: the doctor looks at those of pipelines alone")
    if not is_pipeline:
        where = f": name {folder.parent}" if checkpoints.any_in(folder.parent) and folder.name == FOLDER else ""
        raise UserError(f"{folder} holds no training of a pipeline, as `minild train` writes it{where}")
    if "dataset" not in read_record(folder):
        raise UserError(f"{folder} does not say what it was trained on: the doctor looks at what minild trained")


def _finished(folder):
    """The state of a pipeline's training that has ended, and left nothing but the pipeline."""
    told = read_record(folder)
    with usable(folder / RECORD):
        taken = {stage: told["stages"][stage]["steps"] for stage in STAGES}
        condition = condition_of(told, pretrained.read_json(folder / INDEX))
        choices = {"condition": condition}
        state = first_state(told["dataset"], told["size"], told["seed"], None, taken[STAGES[1]], choices)
        since = list(map(str, told.get("learnt", [])))
    preset = {"posterior": told.get("posterior", "sample")}
    return state | {"stage": STAGES[1], "taken": taken, "preset": preset, "learnt since": since}


def _fitted(preset, folder):
    return fitted(preset, folder) if (folder / "vae").is_dir() else preset


def plain(preset):
    """A preset as JSON has it, to be compared."""
    return json.loads(json.dumps(dataclasses.asdict(preset)))


def _entries(metrics):
    """What the whole lines of metrics.jsonl hold, those with a stage and a step; [] where there is no such file."""
    return [entry for entry in map(_entry, metrics_lines(metrics)) if entry]


def _entry(line):
    """What a line holds; None where it is not whole."""
    try:
        entry = parse_json(line.decode("utf-8"))
    except ValueError:
        return None
    fits = isinstance(entry, dict) and isinstance(entry.get("stage"), str) and isinstance(entry.get("step"), int)
    return entry if fits else None


def _rows(entries, stage, state, preset):
    rows = []
    for entry in entries:
        numbers = {name: value for name, value in entry.items() if isinstance(value, (int, float))}
        if entry["stage"] == stage and "loss" in numbers:
            while rows and rows[-1]["step"] >= entry["step"]:
                rows.pop()
            rows.append({"progress": _noted_progress(stage, numbers, state, preset), **numbers})
    return rows


def _noted_progress(stage, numbers, state, preset):
    """That of an entry that does not say it itself, as older ones do not."""
    return share(**preset.end(stage, state), elapsed=numbers.get("seconds", 0.0), taken=numbers["step"])


def _saved_progress(state, stage, preset):
    """The share of a stage that was over when it was last saved; stage one's clock says nothing of that."""
    elapsed = 0.0 if stage == STAGES[0] else state["elapsed"][stage]
    return share(**preset.end(stage, state), elapsed=elapsed, taken=state["taken"][stage])


def how_far(record):
    """In words: "stage two, the U-Net, step 1,200 of 3,532 (34 %); last written to 8 minutes ago"."""
    if record.ended:
        since = "".join(f"; it has learnt since: {what}" for what in record.state.get("learnt since", []))
        return f"it has ended, after {record.step:,} steps of stage two{since}"
    about = "about " if record.by_clock else ""
    of = f" of {about}{record.planned:,} ({100 * record.progress:.0f} %)" if record.planned else ""
    ago = "less than two minutes" if record.idle < 120 else duration(record.idle)
    now = "it diverged" if record.diverged else f"last written to {ago} ago"
    return f"{TITLES[record.stage]}, step {record.step:,}{of}; {now}"
