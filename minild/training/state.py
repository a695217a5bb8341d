"""state.json of a training: what it holds, how it begins, what a resume may go on with, and what is told of it."""

from numbers import Integral, Real
from pathlib import Path

from minild import pretrained
from minild.errors import UserError
from minild.training.presets import CHOICES

STAGES = ("autoencoder", "diffusion")
STATE = "state.json"


def first_state(dataset, size, seed, minutes, steps, choices):
    """The state of a training that begins."""
    return {
        "dataset": dataset,
        "size": size,
        "seed": seed,
        "minutes": minutes,
        "steps": steps,
        "choices": choices,
        "stage": STAGES[0],
        "taken": dict.fromkeys(STAGES, 0),
        "elapsed": dict.fromkeys(STAGES, 0.0),
    }


def _number(kind, least, none=False):
    def fits(value):
        return (none and value is None) or (isinstance(value, kind) and least <= value < float("inf"))

    return fits


def _each_stage(fits):
    return lambda value: isinstance(value, dict) and value.keys() == set(STAGES) and all(map(fits, value.values()))


FITS = {  # whether a value can be that of a field
    "dataset": lambda value: isinstance(value, str),
    "size": _number(Integral, 1),
    "seed": _number(Integral, 0),
    "minutes": _number(Real, 0, none=True),
    "steps": _number(Integral, 0, none=True),
    "choices": lambda value: isinstance(value, dict) and value.keys() <= CHOICES.keys(),
    "stage": lambda value: value in STAGES,
    "taken": _each_stage(_number(Integral, 0)),
    "elapsed": _each_stage(_number(Real, 0)),
}


def resumed_state(output, dataset, minutes, steps, named, preset):
    """The state in a folder, with the end that is asked for. UserError unless it is what the data set and names say."""
    path = Path(output) / "training" / STATE
    if not path.is_file():
        raise UserError(f"{output} holds no training to resume: leave --resume out to begin one")
    state = pretrained.read_json(path)
    if state.get("dataset") != dataset:
        raise UserError(f"{output} is a training on {state.get('dataset')}, not on {dataset}")
    state.setdefault("choices", preset.choices)  # older ones had none
    for field, fits in FITS.items():
        if field not in state:
            raise UserError(f"{path} has no {field!r}: begin anew in another folder")
        if not fits(state[field]):
            raise UserError(f"{path}: {field!r} cannot be {state[field]!r}: begin anew in another folder")
    for name, begun in {"size": state["size"], "seed": state["seed"], **state["choices"]}.items():
        if named.get(name) not in (None, begun):
            option = name.replace("_", "-")
            raise UserError(f"{output} is a training with {name} {begun}, not {named[name]}: leave --{option} out")
    return state if minutes is None and steps is None else {**state, "minutes": minutes, "steps": steps}


def what_is_saved(output):
    """What a training that stopped has left in `output`, and how to go on, in words."""
    path = Path(output) / "training" / STATE
    if not path.is_file():
        return "nothing was saved: give the same command again"
    taken = pretrained.read_json(path)["taken"]
    if not any(taken.values()):
        return f"nothing was saved in {output} yet: add --resume to begin again"
    steps = " and ".join(f"{taken[stage]:,} of {stage}" for stage in STAGES)
    return f"saved in {output} are the steps {steps}: add --resume to go on"
