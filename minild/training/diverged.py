"""The step at which a training diverged, taken again up to where its numbers come about."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minild import checkpoints, pretrained
from minild.checkpoints import STAGES
from minild.engine.cores import core_count
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.reading import usable
from minild.training.learner import DIVERGED
from minild.training.presets import preset_for
from minild.training.replicas import Replicas
from minild.training.run import Run
from minild.training.state import resume_from

MOST_TOGETHER = 1 << 20  # pictures of a batch


class Replayed(NamedTuple):
    """A step that is about to be taken: objective.forward(model, batch) -> its losses and the cache of its backward."""

    model: Any  # with the weights before the step
    objective: Any
    batch: tuple  # of host arrays with one row an item
    told: dict  # what diverged.json says: "step", "faults", "rows", ...
    same: bool  # whether the generator came to the batch as it did then


def replay(output, device="cpu", preset=None):
    """Go from the last save of a training that diverged to the step that diverged -> Replayed. Nothing is written.

    preset: a presets.Preset in place of the one that the training was begun with. Of a training by steps, weights and
    batch are those of then, bit for bit, on as many cores. The learning rates of one by minutes follow the clock, so
    that its weights are near; the batch is the same. UserError where `output` holds no training that diverged, or it
    was gone on with since.
    """
    told, saved = read_told(output), checkpoints.newest(output)
    if saved is None or saved.state["stage"] != told["stage"] or saved.state["taken"][told["stage"]] >= told["step"]:
        raise UserError(f"{output} holds no save from before step {told['step']} of {told['stage']}, which diverged")
    keep_freed_memory()
    dataset = saved.state["dataset"]
    saved = resume_from(output, dataset, None, None, {}, preset or preset_for(dataset))
    run = Run(output, saved, device, preset)
    if told["stage"] == STAGES[0]:
        learner = run.first_learner()
    else:
        run.open_autoencoder()
        learner = run.second_learner()
    with Replicas(learner.model, learner.objective, min(core_count(), told["batch_size"])) as replicas:
        steps = learner.steps(replicas.gradient)
        while learner.budget.taken < told["step"] - 1:
            next(steps)
    same = learner.rng.bit_generator.state == told["generator"]
    learner.rng.bit_generator.state = told["generator"]
    batch = learner.objective.batch(learner.rng, told["batch_size"], told["progress"])
    return Replayed(learner.model, learner.objective, batch, told, same)


def read_told(output):
    """What diverged.json of a training says. UserError where there is none, or it cannot be one."""
    path = Path(output) / checkpoints.FOLDER / DIVERGED
    if not path.is_file():
        raise UserError(f"{output} holds no training that diverged")
    told = pretrained.read_json(path)
    whole = {"step": (1, sys.maxsize), "batch_size": (1, MOST_TOGETHER)}
    for field, (least, most) in whole.items():
        if type(told.get(field)) is not int or not least <= told[field] <= most:
            raise UserError(f"{path}: {field!r} cannot be {told.get(field)!r}")
    progress = told.get("progress")
    if told.get("stage") not in STAGES or type(progress) not in (int, float) or not 0 <= progress <= 1:
        raise UserError(f"{path} does not say in which stage the training diverged, or how far it was")
    with usable(path):
        np.random.default_rng().bit_generator.state = told["generator"]
    return told
