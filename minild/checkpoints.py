"""What a training has saved of itself, to go on from: DIR/training/checkpoint-STAGE-STEPS, a folder for each save.

state.json        how it was begun, how far it came, the random generator; and the checksum of either file
state.safetensors the arrays: weights, optimiser, moving average

A save is written aside, flushed, and put in place by one rename: it is whole or not there. Trainings begun before there
were such folders have the two files in DIR/training itself, without checksums.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

from minild import pretrained
from minild.durable import flush, move
from minild.errors import UserError

STAGES = ("autoencoder", "diffusion")
FOLDER, STATE, WEIGHTS = "training", "state.json", "state.safetensors"
ASIDE = "next-checkpoint"  # in DIR/training: one that is not whole yet
NAME = re.compile(rf"checkpoint-({'|'.join(STAGES)})-(\d{{6,}})")
KEEP = 2  # saves that stay, where nothing else is asked for


class Checkpoint(NamedTuple):
    """One save."""

    folder: Path
    state: dict  # what state.json says, but for the checksums
    passed_over: list  # lines on newer ones that are damaged

    def read_arrays(self):
        """{name: host array}. UserError, naming the file, where it is missing or broken."""
        return pretrained.read_weights(self.folder / WEIGHTS)


def any_in(output):
    """Whether a training has saved anything, be it whole or not, in the folder `output`."""
    return bool(_folders(output))


def newest(output):
    """The newest Checkpoint in `output` whose checksums are right; None where nothing was saved.

    UserError where there are some and all are damaged: it names what is wrong with the newest.
    """
    faults = []
    for folder in _folders(output):
        try:
            return Checkpoint(folder, _verified(folder), faults)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(f"{faults[0]}: begin anew in another folder")
    return None


def write(output, state, arrays, keep=KEEP):
    """Save a state and {name: host array}, and then remove all but the newest `keep` saves.

    `state` says how far the training came, in "stage" and "taken". OSError where it cannot be written: whatever was
    saved before is then as it was.
    """
    training = Path(output) / FOLDER
    place = training / f"checkpoint-{state['stage']}-{state['taken'][state['stage']]:06d}"
    aside = training / ASIDE
    rmtree(aside, ignore_errors=True)  # of a run that was killed
    try:
        aside.mkdir()
        pretrained.write_weights(aside / WEIGHTS, arrays)
        state = {**state, "weights": _file_checksum(aside / WEIGHTS)}
        pretrained.write_json(aside / STATE, {**state, "checksum": _checksum(state)})
        flush(output)  # whatever the state counts on, vae/ say, is there
        _put_in_place(aside, place, state["weights"])
    finally:
        rmtree(aside, ignore_errors=True)
    _prune(output, place, keep)


def _put_in_place(aside, place, weights):
    """Let a save take its place. At the step that a resume began with, the save it began with is there already."""
    if place.is_dir() and _is_whole(place, weights):
        move(aside / STATE, place / STATE)
        return
    rmtree(place, ignore_errors=True)  # it is damaged
    flush(aside)
    move(aside, place)


def _is_whole(folder, weights):
    """Whether a save is undamaged and has weights of that checksum."""
    try:
        _verified(folder)
        return pretrained.read_json(folder / STATE)["weights"] == weights
    except UserError:
        return False


def _prune(output, place, keep):
    """Remove all saves but the one at `place`, and the keep - 1 before it. Those after it are damaged: it went past."""
    folders = _folders(output)
    kept = folders[folders.index(place) :][:keep]
    for folder in folders:
        if folder in kept:
            continue
        if folder.name == FOLDER:  # of an older training
            for name in (STATE, WEIGHTS):
                (folder / name).unlink(missing_ok=True)
        else:
            rmtree(folder, ignore_errors=True)


def _folders(output):
    """Those that hold a save in `output`, the newest first."""
    training = Path(output) / FOLDER
    found = [(match, path) for path in training.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]
    places = {path: (STAGES.index(match[1]), int(match[2])) for match, path in found}
    if (training / STATE).is_file():
        places[training] = _reached(training)
    return sorted(places, key=lambda path: places[path], reverse=True)


def _reached(training):
    """How far the state of an older training came; one that says nothing of it comes last."""
    try:
        state = pretrained.read_json(training / STATE)
        return STAGES.index(state["stage"]), int(state["taken"][state["stage"]])
    except (UserError, KeyError, TypeError, ValueError):
        return -1, 0


def _verified(folder):
    """What state.json says, but for the checksums. UserError, naming the file, where one is missing or damaged."""
    state = pretrained.read_json(folder / STATE)
    if folder.name == FOLDER:
        return state
    told = {name: state.pop(name, None) for name in ("checksum", "weights")}
    if told["checksum"] != _checksum({**state, "weights": told["weights"]}):
        raise UserError(f"{folder / STATE} is damaged: its checksum is another")
    if told["weights"] != _file_checksum(folder / WEIGHTS):
        raise UserError(f"{folder / WEIGHTS} is damaged: its checksum is another")
    return state


def _checksum(state):
    """sha256 of a JSON object, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _file_checksum(path):
    """sha256 of a file. UserError where it cannot be read."""
    digest, block = hashlib.sha256(), 1 << 20
    try:
        with open(path, "rb") as file:
            while data := file.read(block):
                digest.update(data)
    except OSError as error:
        raise UserError(f"cannot read {path}: {os.strerror(error.errno) if error.errno else error}") from None
    return digest.hexdigest()
