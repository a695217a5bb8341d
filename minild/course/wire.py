"""What a worker sends: a header of known size, then the bytes of its arrays. Read as what it is, a stranger's bytes."""

import json
import math

import numpy as np

LIMIT = 1 << 26  # bytes of a message
DTYPES = {np.dtype(name).str: np.dtype(name) for name in (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)}


def pack(outcome, text="", arrays=()):
    """The message of an outcome, a text that explains it, and (label, array) pairs."""
    arrays = [(label, np.ascontiguousarray(array).reshape(array.shape)) for label, array in arrays]
    fields = [[label, array.dtype.str, array.shape] for label, array in arrays]
    header = json.dumps({"outcome": outcome, "text": text, "arrays": fields}).encode()
    return b"".join([len(header).to_bytes(8, "little"), header, *(array.tobytes() for _, array in arrays)])


def unpack(message):
    """-> (outcome, text, {label: array}). ValueError for whatever is not a message."""
    size = int.from_bytes(message[:8], "little")
    if not 0 < size <= len(message) - 8:
        raise ValueError("no header")
    try:
        header = json.loads(message[8 : 8 + size])
        outcome, text, fields = header["outcome"], header["text"], header["arrays"]
        if not isinstance(outcome, str) or not isinstance(text, str):
            raise ValueError("outcome and text are not strings")
        arrays, start = {}, 8 + size
        for label, dtype, shape in fields:
            dtype, shape = DTYPES[dtype], tuple(int(length) for length in shape)
            if min(shape, default=0) < 0:
                raise ValueError("a negative length")
            count = math.prod(shape)
            if count * dtype.itemsize > len(message) - start:
                raise ValueError("fewer bytes than the header says")
            arrays[str(label)] = np.frombuffer(message, dtype, count, start).reshape(shape)
            start += count * dtype.itemsize
    except (KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"not a message: {error}") from None
    return outcome, text, arrays
