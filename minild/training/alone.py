"""Training one network in one sitting: the perceptual network, a CLIP, a classifier. A pipeline's training: run.py."""

import collections
import contextlib
from pathlib import Path

import numpy as np

from minild import checkpoints
from minild.engine.cores import core_count
from minild.errors import UserError
from minild.pipelines.output import require_writable
from minild.training.budget import Budget
from minild.training.journal import Journal
from minild.training.loop import training_steps
from minild.training.optimizer import ExponentialMovingAverage
from minild.training.replicas import Replicas
from minild.training.watch import Watch

HELD = ("config.json", "model_index.json")  # of a network, a pipeline
LAST = 100  # steps whose metrics are given back


def is_used(output):
    """Whether a folder holds a model, a pipeline or a training."""
    return checkpoints.any_in(output) or any((Path(output) / name).exists() for name in HELD)


def require_unused(output):
    """UserError where a folder holds a model, a pipeline or a training: half of it would be written over."""
    if is_used(output):
        raise UserError(f"{output} holds a model already: name another folder")


@contextlib.contextmanager
def new_folder(output):
    """with new_folder(output) as folder: makes it; UserError where something cannot be written there."""
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from None


def require_writable_folder(output):
    """UserError unless files can be written to a folder of that name. What was not there is not there afterwards."""
    new = [folder for folder in (Path(output), *Path(output).parents) if not folder.exists()]
    try:
        with new_folder(output) as folder:
            require_writable(folder / "config.json")
    finally:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def train_alone(name, model, objective, folder, preset, minutes, steps, seed, split=True):
    """Train a model in place, at the end of which it has its moving average -> Budget, the metrics of the LAST steps.

    minutes, steps  for how long; one of them is None
    split           whether a batch is split over replicas, a core each; False where its loss couples the whole batch

    metrics.jsonl in `folder` is written anew. watch.Diverged where a loss or the gradient is no number any more.
    """
    (folder / "metrics.jsonl").unlink(missing_ok=True)  # of a training that was stopped: nothing else is left of it
    budget, last = Budget(None if minutes is None else 60 * minutes, steps), collections.deque(maxlen=LAST)
    ema, rng, watch = ExponentialMovingAverage(model), np.random.default_rng((seed, 1)), Watch(name)
    with contextlib.ExitStack() as stack:
        gradient = stack.enter_context(Replicas(model, objective, core_count())).gradient if split else None
        journal = stack.enter_context(Journal(folder, name, budget, preset.batch_size))
        for step, metrics in training_steps(model, objective, preset, budget, rng, ema=ema, gradient=gradient):
            watch.note(step, metrics)
            journal.note(metrics)
            last.append(metrics)
    watch.check()
    ema.adopt()
    return budget, last
