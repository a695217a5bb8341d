"""Reading and writing model folders: config.json beside safetensors, as diffusers and transformers have them.

The interchange layout (convolutions OIHW, linear layers out x in) exists only in this file.
"""

import json
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from minild.backend import to_device, to_host
from minild.durable import whole_file
from minild.errors import UserError
from minild.reading import MAX_JSON, is_file_name, parse_json, read_text
from minild.weights import PICKLES, Weights, open_safetensors, refuse_pickle

TO_INTERCHANGE = {"conv": (3, 2, 0, 1), "linear": (1, 0)}
FROM_INTERCHANGE = {"conv": (2, 3, 1, 0), "linear": (1, 0)}
PRECISIONS = ("fp32", "bf16", "fp16")  # variants that hold the same weights, from the most bits on
MAX_SHARDS = 1000
SHARD = re.compile(r"-\d{5}-of-\d{5}")  # in the name of a file that holds a part of the weights


def to_interchange(array, layout):
    """A parameter's array in the interchange layout, on the host."""
    array = to_host(array)
    # np.ascontiguousarray would give a number an axis
    return np.asarray(array.transpose(TO_INTERCHANGE[layout]) if layout else array, order="C")


def from_interchange(array, parameter):
    """A host array of the interchange layout in ours. A 1 x 1 convolution and a linear layer hold the same numbers."""
    layout = parameter.layout
    if layout == "conv" and array.ndim == 2:
        array = array[:, :, None, None]
    elif layout == "linear" and array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if layout and array.ndim == len(FROM_INTERCHANGE[layout]):
        array = array.transpose(FROM_INTERCHANGE[layout])
    return array


def state_dict(module):
    """{key: host array in the interchange layout} of every parameter and buffer."""
    return {name: to_interchange(p.data, p.layout) for name, p in _named_arrays(module)}


def _named_arrays(module):
    """(name, Parameter or Buffer) of all that a state dict holds."""
    return [*module.named_parameters(), *module.named_buffers()]


def gradient_dict(module):
    """{key: host array in the interchange layout} of every gradient; a parameter without one counts as zero."""
    return {
        name: np.zeros_like(to_interchange(p.data, p.layout)) if p.grad is None else to_interchange(p.grad, p.layout)
        for name, p in module.named_parameters()
    }


def load_state_dict(module, state, device="cpu"):
    """Copy a state dict into the module's parameters and buffers, in the dtype that they have, on the named device.

    Raises ValueError that lists every unknown, missing or misshapen key; the module is then as it was.
    """
    parameters = dict(_named_arrays(module))
    faults = [f"missing {name}" for name in parameters if name not in state]
    faults += [f"unknown {name}" for name in state if name not in parameters]
    for name, p in parameters.items():
        faults += _misfit(name, state[name], p) if name in state else []
    if faults:
        raise ValueError(f"weights do not fit the config: {'; '.join(faults[:20])}{_and_more(faults, 20)}")
    for name, p in parameters.items():  # one at a time, for each may be mapped from a file as long as it is held
        p.data = to_device(np.array(from_interchange(state[name], p), p.data.dtype, order="C"), device)
        p.grad = None


def _misfit(name, array, parameter):
    """A list of what keeps the interchange array from being the parameter's value."""
    shape, layout = parameter.shape, parameter.layout
    if from_interchange(array, parameter).shape != shape:
        expected = tuple(shape[axis] for axis in TO_INTERCHANGE[layout]) if layout else shape
        return [f"{name} has shape {tuple(array.shape)}, expected {expected}"]
    # NumPy counts bfloat16, which ml_dtypes adds, as void.
    return [f"{name} holds {array.dtype}, expected floating point"] if array.dtype.kind not in "fV" else []


def _and_more(items, shown):
    return f"; and {len(items) - shown} more" if len(items) > shown else ""


def read_json(path, most=MAX_JSON):
    """The JSON object in a file of at most `most` bytes. UserError, naming the file, where it is missing or is not one.
    """
    try:
        value = parse_json(read_text(path, most))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def write_json(path, value):
    """Write a JSON object: all of the file, on the disk, or what was there before (durable.whole_file)."""
    with whole_file(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_weights(path):
    """{key: host array} of a safetensors file. UserError, naming the file, where it is missing or broken."""
    return {key: np.array(array) for key, array in open_safetensors(path).items()}


def open_weights(folder, name, variant=None):
    """(the Weights in a model's folder, whose file is called `name`, "model.safetensors" say; phrases to tell).

    Whole, or in shards with an index. `variant` asks for those that save_pretrained(..., variant="bf16") writes. None
    takes the plain name; where nothing has it, a variant: of several precisions the one with most bits. UserError names
    what is missing, pickled weights, and variants that need not hold the same weights.
    """
    folder, files = Path(folder), weight_files(folder, name)
    if variant is not None and variant not in files:
        raise UserError(f"{folder} has no variant {variant!r} of its weights, only {_listed(files) or 'none at all'}")
    pickles = [path for path in sorted(folder.glob("*")) if path.suffix in PICKLES]
    if not files:
        for path in pickles[:1]:
            refuse_pickle(path)
        raise UserError(f"cannot read {folder / name}: no such file")
    chosen = _choose(files, folder, name) if variant is None else variant
    among = f"of the variants {_listed(files)} took" if len(files) > 1 else "took the variant"
    alone = len(files) == 1 and not pickles  # in which the reference might read the plain ones
    told = [] if chosen in (variant, "") or (alone and chosen in PRECISIONS) else [f"{among} {chosen}"]
    path = files[chosen]
    return open_safetensors(path) if path.suffix == ".safetensors" else _open_shards(path), told


def _choose(files, folder, name):
    """The variant to take where none is asked for."""
    if "" in files or len(files) == 1:
        return min(files)
    if files.keys() <= set(PRECISIONS):
        return min(files, key=PRECISIONS.index)
    raise UserError(f"{folder} holds the variants {_listed(files)} and no {name}: say which to use (--variant)")


def _listed(files):
    return ", ".join(variant or "the plain one" for variant in sorted(files))


def weight_files(folder, name):
    """{variant: file of the whole weights, or index of shards} in a model's folder; that of the plain name is "".

    With the stem of `name`: stem.safetensors, stem.bf16.safetensors; and the index as the reference writes it, as it
    wrote it earlier, and as others do.
    """
    stem, files = re.escape(name.removesuffix(".safetensors")), {}
    whole = [rf"{stem}(?:|\.(.+))\.safetensors"]
    index = [
        rf"{stem}\.safetensors\.index\.json()",
        rf"{stem}\.safetensors\.index\.(.+)\.json",
        rf"{stem}\.safetensors\.(.+)\.index\.json",
        rf"{stem}\.(.+)\.safetensors\.index\.json",
    ]
    names = [path.name for path in sorted(Path(folder).glob("*")) if path.is_file() and not SHARD.search(path.name)]
    # Where both lie there, transformers, whose stem this is, reads what is whole, and diffusers the shards.
    for form in whole + index if stem == "model" else index + whole:
        for found in filter(None, (re.fullmatch(form, name) for name in names)):
            files.setdefault(found[1] or "", Path(folder) / found[0])
    return files


def _open_shards(index):
    """The Weights that an index distributes over files beside it: {"weight_map": {key: file name}}."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(map(is_file_name, places.values())):
        raise UserError(f"{index} holds no weight_map of file names")
    names = sorted(set(places.values()))
    if len(names) > MAX_SHARDS:
        raise UserError(f"{index} names {len(names):,} files, and {MAX_SHARDS:,} is the most")
    shards = {name: open_safetensors(index.parent / name).tensors for name in names}
    for key, name in places.items():
        if key not in shards[name]:
            raise UserError(f"{index} looks for {key} in {name}, which does not hold it")
    return Weights({key: shards[name][key] for key, name in places.items()})


def write_weights(path, state, metadata=None):
    """Write {key: host array} as safetensors: all of the file, on the disk, or what was there before.

    metadata: {key: text} for its header. OSError where it cannot be written.
    """
    with whole_file(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        try:
            save_file(state, beside, metadata={"format": "pt", **(metadata or {})})
        except SafetensorError as error:  # which does not say more than the system's words
            raise OSError(str(error)) from None
        beside.chmod(mode)  # as any new file's: the library makes its own, for the owner alone
