"""state.json of a training: what it holds, how it begins, what a resume may go on with, and what is told of it."""

import datetime
import sys
from numbers import Integral, Real

from minild import checkpoints
from minild.checkpoints import STAGES
from minild.errors import UserError
from minild.shown import shown
from minild.training.presets import CHOICES


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


def resume_from(output, dataset, minutes, steps, named, preset):
    """The newest Checkpoint in a folder, its state with the end that is asked for. Damaged ones are told of on stderr.

    UserError unless it is what the data set and names say.
    """
    checkpoint = checkpoints.newest(output)
    if checkpoint is None:
        raise UserError(f"{output} holds no training to resume: leave --resume out to begin one")
    for fault in checkpoint.passed_over:
        print(shown(f"minild: {fault}: going on from {checkpoint.folder.name}, saved before it"), file=sys.stderr)
    state, path = checkpoint.state, checkpoint.folder / checkpoints.STATE
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
    end = {} if minutes is None and steps is None else {"minutes": minutes, "steps": steps}
    return checkpoint._replace(state=state | end)


def what_is_saved(output):
    """What a training that stopped has left in `output`, and how to go on, in words."""
    try:
        checkpoint = checkpoints.newest(output)
    except UserError as error:
        return str(error)
    if checkpoint is None:
        return "nothing was saved: give the same command again"
    taken = checkpoint.state["taken"]
    if not any(taken.values()):
        return f"nothing was saved in {output} yet: add --resume to begin again"
    steps = " and ".join(f"{taken[stage]:,} of {stage}" for stage in STAGES)
    return f"saved in {output} are the steps {steps}: add --resume to go on"


def record(state, output, preset, usual, pictures):
    """What minild.json says of how a pipeline was trained.

    usual: the choices that go without saying; pictures: how many it was trained on.
    """
    lengths = {"minutes": "g", "steps": "d"}  # one of them, or none
    length = "".join(f" --{name} {state[name]:{form}}" for name, form in lengths.items() if state[name] is not None)
    others = [(choice, name) for choice, name in state["choices"].items() if name != usual[choice]]
    named = "".join(f" --{choice.replace('_', '-')} {name.replace(' ', '-')}" for choice, name in others)
    settings = f"{length} --size {state['size']} --seed {state['seed']}{named}"
    return {
        "dataset": state["dataset"],
        "size": state["size"],
        "seed": state["seed"],
        "command": f"minild train {state['dataset']}{settings} --output {output}",
        "guidance_scale": preset.guidance_scale,
        **({"posterior": preset.posterior} if preset.posterior != "sample" else {}),  # which goes without saying
        "pictures": pictures,
        "stages": {
            stage: {"steps": state["taken"][stage], "seconds": round(state["elapsed"][stage], 1)} for stage in STAGES
        },
        "date": datetime.date.today().isoformat(),
    }
