"""One training step, the same for every objective: gradient, clipping, AdamW, moving average."""

import contextlib

from minild.backend import device_of, to_device, to_host
from minild.engine.cores import core_count
from minild.training.optimizer import (
    AdamW,
    ExponentialMovingAverage,
    clip_by_global_norm,
    flatten_parameters,
    learning_rate_at,
)
from minild.training.replicas import Replicas


class Trainer:
    """with Trainer(model, objective, rng, settings) as trainer: trainer.step(progress), progress from 0 to 1.

    objective: batch(rng, size, progress) -> host arrays, and work(module, part, share) -> {name: loss} as
    Replicas.gradient wants it. settings: a presets.StagePreset. The model is trained in place, its parameters being
    views of `weights`.
    """

    def __init__(self, model, objective, rng, settings, replicas=None):
        self.objective, self.rng = objective, rng
        self.batch_size, self.learning_rate = settings.batch_size, settings.learning_rate
        self.largest_norm = settings.largest_norm
        self.weights = flatten_parameters(model)
        self.optimizer = AdamW(model, self.weights, weight_decay=settings.weight_decay)
        self.ema = ExponentialMovingAverage(self.weights)
        self.replicas = Replicas(model, objective.work, replicas or min(core_count(), self.batch_size))

    def __enter__(self):
        self.replicas.__enter__()
        return self

    def __exit__(self, *exception):
        self.replicas.__exit__(*exception)

    def step(self, progress):
        """One step -> {name: a number on the device}: the losses and the gradient's norm. Nothing waits for them."""
        batch = self.objective.batch(self.rng, self.batch_size, progress)
        gradient, losses = self.replicas.gradient(batch)
        norm = clip_by_global_norm(gradient, self.largest_norm)
        self.optimizer.step(gradient, learning_rate_at(progress, self.learning_rate), self.replicas.map)
        self.ema.update(self.weights, self.replicas.map)
        return {name: sum(part[name] for part in losses) for name in losses[0]} | {"gradient_norm": norm}

    @contextlib.contextmanager
    def averaged(self):
        """Within it, the model's weights are their moving average."""
        trained = self.weights.copy()
        self.adopt_average()
        try:
            yield
        finally:
            self.weights[:] = trained

    def adopt_average(self):
        """Give the model its moving average for good."""
        self.weights[:] = self.ema.average

    def state_dict(self):
        """{name: host array} of all that changes in a training, but the random generator."""
        parts = {"optimizer": self.optimizer.state_dict(), "ema": self.ema.state_dict()}
        state = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return {"weights": to_host(self.weights), **state}

    def load_state_dict(self, state):
        """Go on from such a dict. ValueError names every array that is missing or misshapen; all is then as it was."""
        own = self.state_dict()
        faults = [name for name in own if name not in state or state[name].shape != own[name].shape]
        if faults:
            raise ValueError(f"the state is not one of this model: {', '.join(faults)}")
        self.weights[:] = to_device(state["weights"], device_of(self.weights))
        for part, target in (("optimizer.", self.optimizer), ("ema.", self.ema)):
            target.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})

