"""The training loop, the same for every objective: all that a step does, in order. What is done around it: stage.py.

An objective says what is learned:
    batch(rng, size, progress) -> a tuple of host arrays with one row an item
    forward(model, batch) -> {"loss": the batch's mean, ...}, cache
    backward(dloss, cache) adds dloss times the gradient of the loss into the model's gradients
It may also do something of its own after the optimiser's step, where replicas share one batch in one place only:
    after_step(model, losses, rng, progress) -> losses
Beside the losses, forward may then give "rows", {name: an array with one row an item}, for after_step to take out.
"""

from minild.training.muon import optimizer_for
from minild.training.optimizer import ExponentialMovingAverage, clip_by_global_norm, learning_rate_at


def training_steps(model, objective, preset, budget, rng, optimizer=None, ema=None, gradient=None):
    """Train the model in place, a step at each turn, until the budget is used up: yields the step's number and {name:
    number on the device}, the losses, the gradient's norm and the learning rate. Nothing here waits for the device.

    preset     a presets.StagePreset
    budget     a budget.Budget: how many steps, or for how long
    rng        a numpy.random.Generator, from which the batches are drawn
    optimizer, ema  those of a training that goes on, or whose moving average is wanted
    gradient   gradient(batch) -> losses in place of the objective's own forward and backward: replicas.Replicas has one
               for all cores
    """
    after_step = getattr(objective, "after_step", None)
    optimizer = optimizer or optimizer_for(model, preset)
    ema = ema or ExponentialMovingAverage(model)
    while (progress := budget.agreed()) < 1:
        optimizer.zero_grad()
        batch = objective.batch(rng, preset.batch_size, progress)
        if gradient is None:
            losses, cache = objective.forward(model, batch)
            objective.backward(1.0, cache)
        else:
            losses = gradient(batch)
        norm = clip_by_global_norm(optimizer.gradient, preset.largest_norm)
        rate = learning_rate_at(progress, preset.learning_rate)
        optimizer.step(rate)
        if after_step:
            losses = after_step(model, losses, rng, progress)
        ema.update()
        budget.taken += 1
        yield budget.taken, losses | {"gradient_norm": norm, "learning_rate": rate}
