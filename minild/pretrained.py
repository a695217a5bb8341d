"""Reading and writing model folders: config.json beside safetensors, as diffusers and transformers have them.

The interchange layout (convolutions OIHW, linear layers out x in) exists only in this file.
"""

import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from minild.backend import to_device, to_host
from minild.errors import UserError

TO_INTERCHANGE = {"conv": (3, 2, 0, 1), "linear": (1, 0)}
FROM_INTERCHANGE = {"conv": (2, 3, 1, 0), "linear": (1, 0)}


def to_interchange(array, layout):
    """A parameter's array in the interchange layout, on the host."""
    array = to_host(array)
    return np.ascontiguousarray(array.transpose(TO_INTERCHANGE[layout]) if layout else array)


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
    """{key: host array in the interchange layout} of every parameter."""
    return {name: to_interchange(p.data, p.layout) for name, p in module.named_parameters()}


def gradient_dict(module):
    """{key: host array in the interchange layout} of every gradient; a parameter without one counts as zero."""
    return {
        name: np.zeros_like(to_interchange(p.data, p.layout)) if p.grad is None else to_interchange(p.grad, p.layout)
        for name, p in module.named_parameters()
    }


def load_state_dict(module, state, device="cpu"):
    """Copy a state dict into the module's parameters, in the dtype that they have, on the device of that name.

    Raises ValueError that lists every unknown, missing or misshapen key; the module is then as it was.
    """
    parameters = dict(module.named_parameters())
    arrays = {name: from_interchange(state[name], p) for name, p in parameters.items() if name in state}
    faults = [f"missing {name}" for name in parameters if name not in state]
    faults += [f"unknown {name}" for name in state if name not in parameters]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, expected {to_interchange(p.data, p.layout).shape}"
        for name, p in parameters.items()
        if name in arrays and arrays[name].shape != p.data.shape
    ]
    if faults:
        raise ValueError(f"weights do not fit the config: {'; '.join(faults[:20])}{_and_more(faults, 20)}")
    for name, p in parameters.items():
        p.data = to_device(np.ascontiguousarray(arrays[name], dtype=p.data.dtype), device)
        p.grad = None


def _and_more(items, shown):
    return f"; and {len(items) - shown} more" if len(items) > shown else ""


def read_json(path):
    """The JSON object in a file. UserError, naming the file, where it is missing or is not one."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"cannot read {path}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def write_json(path, value):
    """Write a JSON object, first beside the place and then in one move: never half a file."""
    beside = Path(path).with_suffix(".partial")
    beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_weights(path):
    """{key: host array} of a safetensors file. UserError, naming the file, where it is missing or broken."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"cannot read {path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None


def write_weights(path, state):
    """Write {key: host array} as safetensors, first beside the place and then in one move: never half a file."""
    beside = Path(path).with_suffix(".partial")
    save_file(state, beside, metadata={"format": "pt"})
    os.replace(beside, path)
