"""What a stage of a training changes from step to step: all that a resume goes on from."""

import contextlib
from collections import deque

import numpy as np

from minild import pretrained
from minild.backend import device_of, to_device, to_host
from minild.training.loop import training_steps
from minild.training.muon import optimizer_for
from minild.training.optimizer import ExponentialMovingAverage
from minild.training.watch import EVERY

DIVERGED = "diverged.json"


def training_state(optimizer, ema, tracker=None):
    """{name: host array}: the weights, and what the optimiser, the moving average and a CodebookTracker keep."""
    parts = {"optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
    if tracker:
        parts["tracker"] = tracker.state_dict()
    state = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    return {"weights": to_host(optimizer.weights), **state}


def load_training_state(optimizer, ema, state, tracker=None):
    """Go on from such a state. ValueError names every array that is missing or misshapen; all is then as it was."""
    own = training_state(optimizer, ema, tracker)
    faults = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if faults:
        raise ValueError(f"the state is not one of this model: {', '.join(faults)}")
    weights = optimizer.weights
    weights[:] = to_device(state["weights"], device_of(weights))
    for part, target in (("optimizer.", optimizer), ("ema.", ema), *([("tracker.", tracker)] if tracker else [])):
        target.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})


class Learner:
    """A model and its objective on their way: optimiser, moving average, generator, budget.

    preset   a presets.StagePreset; budget: a budget.Budget
    seed     of the numpy.random.Generator that the batches are drawn with
    since    what journal.Journal adds up between two lines; it belongs to what is saved
    """

    def __init__(self, model, objective, preset, budget, seed):
        self.model, self.objective, self.preset, self.budget = model, objective, preset, budget
        self.optimizer, self.ema = optimizer_for(model, preset), ExponentialMovingAverage(model)
        self.tracker, self.rng = getattr(objective, "tracker", None), np.random.default_rng(seed)
        self.since = {}
        self._begun = deque(maxlen=EVERY + 1)  # (step, progress, the generator's state) of the last steps

    def steps(self, gradient=None):
        """Those of loop.training_steps."""
        arguments = self.model, self.objective, self.preset, self.budget, self.rng, self.optimizer, self.ema, gradient
        steps = training_steps(*arguments)
        while True:
            self._begun.append((self.budget.taken + 1, self.budget.progress, self.rng.bit_generator.state))
            taken = next(steps, None)
            if taken is None:
                return
            yield taken

    def arrays(self):
        """{name: host array} of all that changes."""
        return training_state(self.optimizer, self.ema, self.tracker)

    def words(self):
        """The rest of it, as JSON has it."""
        sums = {name: float(total) for name, total in self.since.get("sums", {}).items()}
        return {"generator": self.rng.bit_generator.state, "since": self.since | {"sums": sums} if sums else {}}

    def load(self, arrays, words):
        """Go on from what was saved. ValueError where it is not of this model or objective."""
        load_training_state(self.optimizer, self.ema, arrays, self.tracker)
        try:
            self.rng.bit_generator.state = words["generator"]
        except (KeyError, TypeError, ValueError):
            raise ValueError("its random generator's state is broken") from None
        self.since = dict(words.get("since", {}))

    def share(self, ranks):
        """Let every rank go on with what the first one has."""
        if ranks.size > 1:
            state = ranks.broadcast((self.arrays(), self.words()) if ranks.first else None)
            if not ranks.first:
                self.load(*state)

    def write_diverged(self, error, folder):
        """Write to diverged.json what a watch.Diverged says and how its step's batch was drawn: "progress",
        "batch_size", "generator", the state before the batch, and "rows", the numbers of its pictures.
        """
        begun = {step: (progress, generator) for step, progress, generator in self._begun}
        progress, generator = begun[error.step]
        rng, size = np.random.default_rng(), self.preset.batch_size
        rng.bit_generator.state = generator
        told = {"stage": error.stage, "step": error.step, "faults": {k: str(v) for k, v in error.faults.items()}}
        told |= {"progress": progress, "batch_size": size, "generator": generator}
        with contextlib.suppress(OSError):  # that it diverged is what is to be told
            pretrained.write_json(folder / DIVERGED, told | {"rows": self.objective.rows(rng, size).tolist()})
