"""Low-rank updates of whole models: where they go, and the files they come in (LoRA; arXiv 2106.09685).

A file holds two matrices of each layer that is updated, A of `rank` rows and B of `rank` columns, under the key styles
    unet.mid_block.attentions.0....to_q.lora_A.weight, .lora_B.weight    the reference's, and ours
    unet.mid_block.attentions.0....to_q.lora.down.weight, .lora.up.weight; ....processor.to_q_lora.down.weight
    text_encoder.text_model....q_proj.lora_linear_layer.down.weight      the same in earlier releases
    lora_unet_mid_block_attentions_0_..._to_q.lora_down.weight, .alpha; lora_te_...      that of kohya's scripts
ΔW = (alpha / rank) B A in the interchange layout. alpha is the rank where the file says nothing of it.
"""

import json
import math
import re
from typing import Any, NamedTuple

import numpy as np

from minild.backend import to_device, to_host
from minild.errors import UserError
from minild.nn.layers import Conv2d, Linear
from minild.nn.lora import LowRank, Updated
from minild.pretrained import from_interchange, to_interchange, write_weights
from minild.reading import parse_json, usable
from minild.weights import open_safetensors, safetensors_metadata

PARTS = ("unet", "text_encoder")
METADATA = "lora_adapter_metadata"  # the reference's, in a file's header: {"unet.r": 4, "unet.lora_alpha": 4, ...}
TARGETS = {"unet": ("to_q", "to_k", "to_v", "to_out.0"), "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj")}
ROLE = re.compile(r"(?:\.lora_(A)|\.lora_(B)|[._]lora(?:_linear_layer)?[._](?:(down)|(up)))\.weight")
STARTS = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder"}
OLD_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # of a text encoder's layers
SHOWN = 3  # of the keys that do not fit


class Update(NamedTuple):
    """What a file has for one layer."""

    down: Any  # A (rank, Cin) or (rank, Cin, kH, kW), on the host
    up: Any  # B (Cout, rank) or (Cout, rank, 1, 1)
    alpha: float


def named_layers(module, prefix=""):
    """(path, layer, put) of every Linear and Conv2d below, updated or not; put(new) sets another in its place."""
    for name, child in module.children():
        if isinstance(child, (Linear, Conv2d, Updated)):
            yield prefix + name, child, _putter(module, name)
        else:
            yield from named_layers(child, f"{prefix}{name}.")


def _putter(module, name):
    """put(new), of a child by its name, which is "to_out.0" where it is one of a list."""

    def put(new):
        holder = getattr(module, "module", module)  # of what stands around another
        attribute, _, index = name.partition(".")
        if index:
            getattr(holder, attribute)[int(index)] = new
        else:
            setattr(holder, attribute, new)

    return put


def attach(layer, put, name, update, weight):
    """Add a LowRank update under `name` to a layer of named_layers, with that weight."""
    if not isinstance(layer, Updated):
        layer = Updated(layer)
        put(layer)
    layer.updates[name] = [update, weight]


def add_updates(model, part, name, rank, alpha, rng):
    """New updates of the layers TARGETS of a model, ready to be trained -> {path: LowRank}. All else is frozen.

    The U-Net's are those of its attentions; a Conv2d or another Linear stays as it is.
    """
    model.freeze()
    new = {}
    for path, layer, put in list(named_layers(model)):
        if path.endswith(tuple(f".{target}" for target in TARGETS[part])):
            new[path] = LowRank(layer, rank, alpha).initialise(rng).astype(model.dtype).to(model.device)
            attach(layer, put, name, new[path], 1.0)
    return new


def updated_layers(model):
    """(path, Updated, put) of every layer that has an update."""
    return [entry for entry in named_layers(model) if isinstance(entry[1], Updated)]


def detach(model, name):
    """Take the updates of that name away; a layer without any is the one it was."""
    for _, layer, put in updated_layers(model):
        if layer.updates.pop(name, None) and not layer.updates:
            put(layer.module)


def updates_of(model, name):
    """{path: LowRank} of the updates of that name."""
    return {path: layer.updates[name][0] for path, layer, _ in updated_layers(model) if name in layer.updates}


def read_lora(path):
    """{part: {layer's key: Update}} of a file; the key is as the file has it, without the part.

    UserError for a file that is no safetensors, or holds anything but low-rank updates.
    """
    with usable(path), np.errstate(over="ignore", invalid="ignore"):
        return _updates(path, open_safetensors(path), _stated(path))


def _updates(path, weights, stated):
    found, alphas = {}, {}
    for key in weights:
        role = ROLE.search(key)
        start = next((start for start in STARTS if key.startswith(start)), None)
        part = STARTS[start] if start else key.partition(".")[0]
        if part not in PARTS or not ((role and role.end() == len(key)) or key.endswith(".alpha")):
            raise UserError(f"{path}: {_shown([key])} is no part of a LoRA of a U-Net or a text encoder")
        layer = key[: role.start()] if role else key.removesuffix(".alpha")
        layer = layer.removeprefix(start or f"{part}.")
        if role:
            side = "down" if role[1] or role[3] else "up"
            found.setdefault(part, {}).setdefault(layer, {})[side] = np.array(weights[key], np.float32)
        else:
            alphas[part, layer] = float(np.array(weights[key], np.float32).sum())
    updates = {}
    for part, layers in found.items():
        for layer, sides in layers.items():
            if len(sides) < 2:
                raise UserError(f"{path}: {layer} has one matrix of two, {' '.join(sides)}")
            down, up = sides["down"], sides["up"]
            if down.ndim not in (2, 4) or up.ndim not in (2, 4) or len(down) != up.shape[1] or not len(down):
                raise UserError(f"{path}: {layer} has matrices {down.shape} and {up.shape}, which share no rank")
            if not (np.isfinite(down).all() and np.isfinite(up).all()):
                raise UserError(f"{path}: {layer} holds values that are no numbers")
            alpha = alphas.get((part, layer), stated(part, layer, len(down)))
            if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
                raise UserError(f"{path}: {layer} has the alpha {alpha!r}, which is no number")
            updates.setdefault(part, {})[layer] = Update(down, up, alpha)
    if not updates:
        raise UserError(f"{path} holds no LoRA")
    return updates


def _stated(path):
    """alpha(part, layer, rank), by what the reference's metadata of a file says; the rank where it says nothing."""
    try:
        fields = parse_json(safetensors_metadata(path).get(METADATA, "{}"))
    except ValueError:
        raise UserError(f"{path}: its {METADATA} is no JSON") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path}: its {METADATA} is no JSON object")

    def alpha(part, layer, rank):
        own, value = fields.get(f"{part}.alpha_pattern") or {}, fields.get(f"{part}.lora_alpha", rank)
        for pattern, number in own.items():
            if layer.endswith(pattern.removeprefix("^")):
                value = number
        factor = rank**0.5 if fields.get(f"{part}.use_rslora") else 1  # for which α / √rank stands for α / rank
        return factor * value

    return alpha


def fit(path, model, part, updates):
    """[(layer, put, LowRank), ...] of a file's updates of one model. UserError where they do not fit it."""
    layers = {place: (layer, put) for place, layer, put in named_layers(model)}
    flat = {(f"text_model.{p}" if part == "text_encoder" else p).replace(".", "_"): p for p in layers}
    placed, unknown, misfits = {}, [], []
    for key, update in updates.items():
        place = flat.get(key) or _own_path(key, part)
        if place not in layers:
            unknown.append(key)
            continue
        if place in placed:
            raise UserError(f"{path} has {place} twice")
        layer, put = layers[place]
        bare = layer.module if isinstance(layer, Updated) else layer
        low = LowRank(bare, len(update.down), update.alpha)
        for parameter, array in ((low.lora_A.weight, update.down), (low.lora_B.weight, update.up)):
            ours = from_interchange(array, parameter)
            if ours.shape != parameter.shape:
                expected = to_interchange(np.empty(parameter.shape), parameter.layout).shape
                misfits.append(f"{place} has shape {array.shape}, expected {expected}")
            else:
                parameter.data = to_device(np.array(ours, model.dtype, order="C"), model.device)
        placed[place] = layer, put, low
    if unknown:
        raise UserError(f"{path} does not fit the model: its {part} has no {_shown(unknown)}")
    if misfits:
        more = f"; and {len(misfits) - SHOWN} more" if len(misfits) > SHOWN else ""
        raise UserError(f"{path} is of another model: {part}: {'; '.join(misfits[:SHOWN])}{more}")
    return list(placed.values())


def _own_path(key, part):
    """Our path of a layer, of the key of an earlier release."""
    key = key.replace(".processor.", ".")
    if part == "text_encoder":
        start, _, last = key.removeprefix("text_model.").rpartition(".")
        return f"{start}.{OLD_NAMES.get(last, last)}"
    return f"{key}.0" if key.endswith(".to_out") else key


def _shown(keys):
    shown = [ascii(key)[1:-1][:80] for key in keys[:SHOWN]]
    return ", ".join([*shown, f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else shown)


def write_lora(path, models, name):
    """Write the updates of that name of {part: model} to one file, in the layout of the reference's save_lora_weights.

    Ranks and alphas must be the same in all layers of a part, as those of add_updates are.
    """
    state, fields = {}, {}
    for part, model in models.items():
        prefix = f"{part}.text_model" if part == "text_encoder" else part
        updates = updates_of(model, name)
        for place, update in updates.items():
            for side, parameter in update.named_parameters():
                state[f"{prefix}.{place}.{side}"] = to_interchange(to_host(parameter.data), parameter.layout)
        one = next(iter(updates.values()))
        targets = sorted(TARGETS[part])
        fields |= {f"{part}.r": one.rank, f"{part}.lora_alpha": one.alpha, f"{part}.target_modules": targets}
    write_weights(path, state, {METADATA: json.dumps(fields)})
