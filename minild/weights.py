"""Weights: the tensors of safetensors files, each mapped into memory when it is asked for.

A safetensors file is 8 bytes that give the length of a header (little-endian), the header, which is JSON, and the
tensors' bytes one after the other: https://huggingface.co/docs/safetensors. The header is read here rather than by the
library, for the library's NumPy side knows no bfloat16 and keeps the whole file mapped, so that reading a model would
take its memory twice.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minild.errors import UserError
from minild.reading import parse_json, require_regular

MAX_HEADER = 10_000_000  # bytes; Stable Diffusion's take 0.2 MB
MAX_DIMENSIONS = 8
MAX_TENSORS = 100_000  # Stable Diffusion has 1,100 in one file
MAX_NAME = 1000  # characters of a tensor's name
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "BF16": "<u2",  # read as its bits, then seen as what it is
}
BITS = {kind: 8 * np.dtype(name).itemsize for kind, name in DTYPES.items()}
BITS |= {"C64": 64, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}  # those that cannot be read have a size all the same
BITS |= dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
GIT_LFS = b"version https://git-lfs"


class Tensor(NamedTuple):
    """Where a tensor lies: `size` bytes, `offset` into the file at `path`. `kind`: a key of DTYPES, or unreadable."""

    path: Any
    kind: str
    shape: tuple
    offset: int
    size: int

    def read(self):
        """The tensor as a read-only array that is mapped: its memory is the file's, and goes when the array does."""
        dtype = np.dtype(DTYPES[self.kind])
        if math.prod(self.shape) == 0:  # nothing cannot be mapped
            array = np.empty(self.shape, dtype)
        else:
            array = np.memmap(self.path, dtype, "r", self.offset, self.shape)
        return array.view(_bfloat16(self.path)) if self.kind == "BF16" else array


class Weights(Mapping):
    """{key: host array}, made of {key: Tensor}."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __getitem__(self, key):
        """The tensor as an array. UserError for a dtype that cannot be read."""
        tensor = self.tensors[key]
        if tensor.kind not in DTYPES:
            use = "store it as F32, F16 or BF16"
            raise UserError(f"{tensor.path}: {key} has the dtype {tensor.kind!r}, which is not supported: {use}")
        return tensor.read()

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)

    def renamed(self, rename):
        """The same weights under the keys rename(key); those for which it is None are left out."""
        tensors, old = {}, {}
        for key, tensor in self.tensors.items():
            name = rename(key)
            if name in tensors:
                raise ValueError(f"{old[name]} and {key} are the same weight")
            if name is not None:
                tensors[name], old[name] = tensor, key
        return Weights(tensors)


def open_safetensors(path):
    """The Weights in a safetensors file. UserError, naming the file, where it is missing or broken."""
    path = Path(path)
    header, size = _header(path)
    try:
        return Weights(_tensors(path, header, size))
    except ValueError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None


def safetensors_metadata(path):
    """{key: text} that a file that can be opened says of itself; {} where that is nothing."""
    stated = parse_json(_header(Path(path))[0]).get("__metadata__")
    return {key: text for key, text in stated.items() if isinstance(text, str)} if isinstance(stated, dict) else {}


def _header(path):
    """The bytes of a file's header, and the file's size. UserError where there is none."""
    refuse_pickle(path)
    try:
        size = require_regular(path).st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if length <= min(size - 8, MAX_HEADER):
                header = file.read(length)
            elif (start + file.read(len(GIT_LFS))).startswith(GIT_LFS):
                raise UserError(f"{path} only points to the weights: run `git lfs pull` in its folder")
            else:
                raise ValueError(f"its header would take {length:,} of {size:,} bytes")
        return header, size
    except FileNotFoundError:
        raise UserError(f"cannot read {path}: no such file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None


def _tensors(path, header, size):
    """{key: Tensor} of a header. ValueError unless the tensors fill the rest of the file, one after the other.

    One of a dtype that cannot be read is among them, for it may be one that nobody needs.
    """
    entries = parse_json(header.decode("utf-8"), each_once=True)
    if not isinstance(entries, dict):
        raise ValueError("its header is not a JSON object")
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"it states {len(entries):,} tensors, and {MAX_TENSORS:,} is the most")
    data, spans, tensors = 8 + len(header), [], {}
    for key, entry in entries.items():
        kind, shape, begin, end = _fields(key, entry, size)
        bits, count = 8 * (end - begin), math.prod(shape)
        if bits != count * BITS[kind] if kind in BITS else bits < count:
            raise ValueError(f"{key!r} of shape {shape} and dtype {kind} does not take {end - begin:,} bytes")
        spans.append((begin, end))
        tensors[key] = Tensor(path, kind, tuple(shape), data + begin, end - begin)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ValueError(f"its tensors leave a gap or overlap at byte {begin:,}")
        reached = end
    if data + reached != size:
        raise ValueError(f"its tensors take {data + reached:,} bytes, the file has {size:,}")
    return tensors


def _fields(key, entry, size):
    """dtype, shape, begin and end of a header's entry, each of the right type and no number beyond `size`."""
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{key!r} lacks a dtype, a shape or data_offsets") from None
    if not isinstance(kind, str):
        raise ValueError(f"{key!r} has the dtype {kind!r}, which is no name")
    if len(key) > MAX_NAME:
        raise ValueError(f"a tensor's name has {len(key):,} characters")
    most = 8 * size  # bits; offsets are held to bytes where the tensors are seen to fill the file
    if len(shape) > MAX_DIMENSIONS or any(type(n) is not int or not 0 <= n <= most for n in numbers) or end < begin:
        raise ValueError(f"{key!r} has a shape or data_offsets that cannot be")
    return kind, shape, begin, end


def refuse_pickle(path):
    """UserError for a file that Python's pickle would have to open."""
    if path.suffix.lower() in PICKLES:
        raise UserError(f"{path} is a pickle, which can run any code when it is opened: use a .safetensors file")


def _bfloat16(path):
    try:
        import ml_dtypes
    except ImportError:
        raise UserError(f"{path} holds bfloat16: pip install 'minild[bf16]' to read it") from None
    return ml_dtypes.bfloat16
