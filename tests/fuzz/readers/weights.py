"""Safetensors: the files, the index of several, and what is read from them."""

import json

import numpy as np

from minild import pretrained
from minild.models.lora import fit, read_lora
from minild.pipelines.learnt_tokens import read_embeddings
from minild.pipelines.single_file import our_key
from minild.weights import DTYPES, open_safetensors, safetensors_metadata

from ..mutate import TEXTS, any_value, changed_bytes, changed_json, hostile_json, json_bytes
from ..reader import Link, Pipe, Reader

KINDS = {"float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL", "float64": "F64"}


def parts_of(arrays, metadata=None):
    """(header's fields, data) of a safetensors file of {name: array}."""
    fields, data = {"__metadata__": metadata or {"format": "pt"}}, b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        fields[name] = {"dtype": KINDS[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    return fields, data


def joined(header, data, length=None):
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def written(arrays, metadata=None):
    fields, data = parts_of(arrays, metadata)
    return joined(json.dumps(fields).encode(), data)


def hostile(rng, arrays, metadata=None):
    """The bytes of a safetensors file that lies: in its header's values, its length, its names, its data."""
    fields, data = parts_of(arrays, metadata)
    what = rng.random()
    if what < 0.1:
        return changed_bytes(rng, written(arrays, metadata))
    if what < 0.5:
        fields = changed_json(rng, fields)
    elif what < 0.85:
        _lie(rng, fields, data)
    header = json_bytes(rng, fields)
    if what > 0.85:
        data = changed_bytes(rng, data)
    length = rng.choice((0, 1, 7, 2**20, 2**40, 2**63, 2**64 - 1, len(header) - 1, len(header) + 1))
    return joined(header, data, length if rng.random() < 0.05 else None)


def _lie(rng, fields, data):
    """Change entries so that they still look like some."""
    names = [name for name in fields if name != "__metadata__"]
    entry = fields[rng.choice(names)]
    what = rng.randrange(7)
    if what == 0:
        entry["dtype"] = rng.choice([*DTYPES, "F8_E4M3", "F4", "C64", "X1", "f32", ""])
    elif what == 1:
        entry["shape"] = [rng.choice((0, 1, 2, 3, 2**31, 2**62, -1)) for _ in range(rng.randrange(10))]
    elif what == 2:
        at = sorted(rng.randrange(len(data) + 2) for _ in range(2))
        entry["data_offsets"] = at if rng.random() < 0.8 else at[::-1]
    elif what == 3:  # the same place twice
        other = fields[rng.choice(names)]
        entry["data_offsets"] = list(other["data_offsets"])
    elif what == 4:
        fields[rng.choice(TEXTS)] = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    elif what == 5:
        at = [len(data), len(data)]
        few = rng.choice((10, 10, 10, 100, 1000)) if rng.random() < 0.98 else 30_000
        fields |= {f"n{i}": {"dtype": "U8", "shape": [0], "data_offsets": at} for i in range(few)}
    else:
        fields["__metadata__"] = {rng.choice(TEXTS): any_value(rng)}


def all_arrays(weights):
    """Read everything that can be read of the Weights."""
    return {key: np.array(weights[key]) for key, tensor in weights.tensors.items() if tensor.kind in DTYPES}


ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.bias": np.array([1.5, -2.5, 65504], np.float16),
    "ids": np.array([[2**40, -1]]),
    "one": np.array(0.1),
    "odd": np.array([True, False, True]),
}


class Safetensors(Reader):
    name, memory = "safetensors", 150  # a header of MAX_HEADER bytes is ten times that as objects

    def files(self, folder):
        (folder / "a.safetensors").write_bytes(written(ARRAYS))

    def make(self, rng):
        if rng.random() < 0.002:
            return {"a.safetensors": rng.choice((Pipe(), Link("/dev/zero"), Link("../secret.safetensors"), Link("a")))}
        return {"a.safetensors": hostile(rng, ARRAYS)}

    def read(self, folder):
        all_arrays(open_safetensors(folder / "a.safetensors"))
        safetensors_metadata(folder / "a.safetensors")


class Shards(Reader):
    name, memory = "shards", 64
    index = {"metadata": {"total_size": 24}, "weight_map": {"a": "m-00001-of-00002.safetensors",
             "b": "m-00002-of-00002.safetensors"}}  # fmt: skip

    def files(self, folder):
        (folder / "m.safetensors.index.json").write_text(json.dumps(self.index))
        for i, name in enumerate(("a", "b"), 1):
            data = written({name: np.arange(3, dtype=np.float32)})
            (folder / f"m-0000{i}-of-00002.safetensors").write_bytes(data)

    def make(self, rng):
        index = json.loads(json.dumps(self.index))
        if rng.random() < 0.5:
            outside = ("../secret.safetensors", "/etc/passwd", "..\\secret.safetensors", "./../secret.safetensors")
            index["weight_map"]["a"] = rng.choice(TEXTS + outside)
            return {"m.safetensors.index.json": json_bytes(rng, index)}
        if rng.random() < 0.01:
            files = {f"k{i}": f"{i}.safetensors" for i in range(1002)}
            return {"m.safetensors.index.json": json.dumps({"weight_map": files}).encode()}
        return {"m.safetensors.index.json": hostile_json(rng, index)}

    def read(self, folder):
        all_arrays(pretrained.open_weights(folder, "m.safetensors")[0])


class Json(Reader):
    name, memory = "json", 64
    value = {"a": 1, "b": [1, 2, {"c": None}], "d": {"e": "f", "g": [True, 1.5]}}

    def files(self, folder):
        (folder / "a.json").write_text(json.dumps(self.value))

    def make(self, rng):
        if rng.random() < 0.002:
            odd = Pipe(), Link("/dev/zero"), Link("a.json"), b"[" * (1 << 22), b" " * (1 << 23)
            return {"a.json": rng.choice(odd)}
        return {"a.json": hostile_json(rng, self.value)}

    def read(self, folder):
        pretrained.read_json(folder / "a.json")


class Lora(Reader):
    name, memory = "lora", 64

    def __init__(self):
        rng = np.random.default_rng(0)
        self.styles = []
        for names in (("lora_A", "lora_B"), ("lora.down", "lora.up")):
            places = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.proj_in"]
            arrays = {}
            for place in places:
                arrays[f"unet.{place}.{names[0]}.weight"] = rng.standard_normal((2, 8), np.float32)
                arrays[f"unet.{place}.{names[1]}.weight"] = rng.standard_normal((8, 2), np.float32)
            self.styles.append(arrays)
        place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        self.styles.append({
            f"{place}.lora_down.weight": rng.standard_normal((2, 8), np.float32),
            f"{place}.lora_up.weight": rng.standard_normal((8, 2), np.float32),
            f"{place}.alpha": np.array(2, np.float32),
        })  # fmt: skip
        self.told = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 3}, "unet.use_rslora": True}

    def files(self, folder):
        from models.tiny import UNET

        from minild.models import UNet2DConditionModel

        self.model = UNet2DConditionModel.from_config(UNET)
        (folder / "a.safetensors").write_bytes(written(self.styles[0]))

    def make(self, rng):
        arrays = dict(rng.choice(self.styles))
        metadata = {"format": "pt"}
        if rng.random() < 0.4:
            metadata["lora_adapter_metadata"] = hostile_json(rng, self.told).decode("utf-8", "replace")
        what = rng.random()
        if what < 0.3:
            key = rng.choice(list(arrays))
            odd = (
                np.float32(np.nan), np.float64(1e300), np.zeros((2, 0), "f"), np.ones((2, 8, 1, 1), "f"),
                np.ones((3,), "f"), np.array([[2**62] * 8] * 2), np.zeros((0, 8), "f"), np.ones((2, 8), bool),
            )  # fmt: skip
            arrays[key] = np.asarray(rng.choice(odd))
        elif what < 0.5:
            key = rng.choice(list(arrays))
            arrays[rng.choice((key + "x", key.upper(), key.replace("unet", "vae"), rng.choice(TEXTS), key.replace(
                "_q", "_zz"), "unet..lora_A.weight", ".alpha", "lora_te_.alpha"))] = arrays.pop(key)  # fmt: skip
        elif what < 0.8:
            return {"a.safetensors": hostile(rng, arrays, metadata)}
        fields, data = parts_of(arrays, metadata)
        return {"a.safetensors": joined(json_bytes(rng, fields), data)}

    def read(self, folder):
        found = read_lora(folder / "a.safetensors")
        if "unet" in found:
            fit(folder / "a.safetensors", self.model, "unet", found["unet"])


class Embedding(Reader):
    name, memory = "embedding", 64

    def files(self, folder):
        (folder / "a.safetensors").write_bytes(written({"<cat>": np.ones((2, 8), np.float32)}))

    def make(self, rng):
        odd = (np.ones(8, "f"), np.full((2, 8), np.nan, "f"), np.float64(1e300), np.zeros((0, 8), "f"),
               np.ones((2, 2, 2), "f"), np.ones((5000, 8), "f"), np.ones((1, 1), bool))  # fmt: skip
        name = rng.choice(("<cat>", "emb_params", "a b", *TEXTS))
        array = np.asarray(rng.choice(odd)) if rng.random() < 0.5 else np.ones((2, 8), np.float32)
        if rng.random() < 0.5:
            return {"a.safetensors": hostile(rng, {name: array})}
        fields, data = parts_of({name: array})
        return {"a.safetensors": joined(json_bytes(rng, fields), data)}

    def read(self, folder):
        read_embeddings(folder / "a.safetensors")


class SingleFile(Reader):
    """The names in one file with all of Stable Diffusion, as first published."""

    name, memory = "single-file", 64
    keys = ("model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "first_stage_model.encoder.conv_in.bias",
            "cond_stage_model.transformer.text_model.final_layer_norm.weight", "betas")  # fmt: skip

    def files(self, folder):
        (folder / "a.safetensors").write_bytes(written({key: np.ones(2, np.float32) for key in self.keys}))

    def make(self, rng):
        keys = [*self.keys]
        i = rng.randrange(len(keys))
        keys[i] = rng.choice((keys[i] + "." * 500_000, keys[i] + "." * 900, keys[i] + ".a" * 400, keys[i] * 2,
                              rng.choice(TEXTS), keys[i][: rng.randrange(len(keys[i]))],
                              keys[i].replace("1", str(rng.randrange(99)))))  # fmt: skip
        arrays = {key: np.ones(2, np.float32) for key in keys}
        return {"a.safetensors": written(arrays)}

    def read(self, folder):
        weights = open_safetensors(folder / "a.safetensors")
        for part in ("vae", "text_encoder", "unet"):
            for key in weights:
                our_key(part, key)
