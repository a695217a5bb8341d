"""minild.weights: safetensors files read as the library writes them, and headers that lie."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from minild.errors import UserError
from minild.weights import DTYPES, MAX_HEADER, PICKLES, Weights, open_safetensors

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.bias": np.array([1.5, -2.5, 65504], np.float16),
    "ids": np.array([[2**40, -1]]),
    "one": np.array(0.1),
    "nothing": np.zeros((0, 3), np.float32),
    "odd": np.array([True, False, True]),
}


def header_of(arrays):
    """The header's fields, of arrays one after the other in their order."""
    kinds = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "bool": "BOOL"}
    fields, at = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        end = at + array.nbytes
        fields[name] = {"dtype": kinds[array.dtype.name], "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    return fields


DATA = b"".join(array.tobytes() for array in ARRAYS.values())


def write(path, header, data=DATA, length=None):
    """A file with that header (fields or bytes), which states its length, or another."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    return path


def assert_equal_arrays(weights, arrays=ARRAYS):
    assert weights.keys() == arrays.keys()
    for name, array in arrays.items():
        assert weights[name].dtype == array.dtype and weights[name].shape == array.shape
        np.testing.assert_array_equal(weights[name], array)


def test_what_the_library_writes_is_read(tmp_path):
    save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert_equal_arrays(open_safetensors(tmp_path / "a.safetensors"))
    assert_equal_arrays(open_safetensors(write(tmp_path / "b.safetensors", header_of(ARRAYS))))


def test_arrays_are_mapped_and_read_only(tmp_path):
    array = open_safetensors(write(tmp_path / "a.safetensors", header_of(ARRAYS)))["a.weight"]
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_renaming_leaves_out_and_refuses_a_name_twice(tmp_path):
    weights = open_safetensors(write(tmp_path / "a.safetensors", header_of(ARRAYS)))
    names = {"a.weight": "A", "odd": "O"}
    renamed = weights.renamed(names.get)
    assert isinstance(renamed, Weights) and list(renamed) == ["A", "O"]
    np.testing.assert_array_equal(renamed["A"], ARRAYS["a.weight"])
    with pytest.raises(ValueError, match=r"a\.weight and odd are the same weight"):
        weights.renamed({"a.weight": "A", "odd": "A"}.get)


def test_bfloat16_is_read_with_ml_dtypes(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([[1.5, -3.25e38, 0.1]], np.float32).astype(ml_dtypes.bfloat16)
    fields = {"x": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}
    array = open_safetensors(write(tmp_path / "a.safetensors", fields, values.tobytes()))["x"]
    assert array.dtype == values.dtype and array.shape == (1, 3)
    np.testing.assert_array_equal(array.astype(np.float32), values.astype(np.float32))


def test_without_ml_dtypes_bfloat16_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    fields = {"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    weights = open_safetensors(write(tmp_path / "a.safetensors", fields, b"\0\0"))
    with pytest.raises(UserError, match=r"a\.safetensors holds bfloat16: pip install 'minild\[bf16\]'"):
        weights["x"]


def entry(**changes):
    """The header with the entry of "a.weight" (24 bytes at 0) changed."""
    fields = header_of(ARRAYS)
    fields["a.weight"] |= changes
    return fields


def without(field):
    fields = header_of(ARRAYS)
    del fields["a.weight"][field]
    return fields


LIES = {
    "a larger shape": entry(shape=[2, 4]),
    "an enormous shape": entry(shape=[2**62, 2**62]),
    "an enormous side beside zero": entry(shape=[0, 2**62], data_offsets=[0, 0]),
    "a negative shape": entry(shape=[-2, -3]),
    "a fractional shape": entry(shape=[2.0, 3]),
    "a shape of truths": entry(shape=[True, 6]),
    "a shape of words": entry(shape=["two", 3]),
    "a shape that is a word": entry(shape="23"),
    "a shape that is a number": entry(shape=6),
    "more dimensions than any array": entry(shape=[1] * 100_000 + [6]),
    "another dtype's size": entry(dtype="F64"),
    "a dtype that is a list": entry(dtype=["F32"]),
    "an eight-bit dtype of another size": entry(dtype="F8_E4M3"),
    "a dtype of half bytes of another size": entry(dtype="F4", shape=[47]),
    "more numbers than bits, of a dtype to come": entry(dtype="X1", shape=[193]),
    "an end before the start": entry(data_offsets=[24, 0]),
    "a negative start": entry(data_offsets=[-24, 0]),
    "beyond the file": entry(data_offsets=[10**6, 10**6 + 24]),
    "beyond any file": entry(data_offsets=[10**30, 10**30 + 24]),
    "an overlap": entry(data_offsets=[4, 28]),
    "one offset": entry(data_offsets=[0]),
    "three offsets": entry(data_offsets=[0, 24, 24]),
    "offsets of nothing": entry(data_offsets=None),
    "no shape": without("shape"),
    "no dtype": without("dtype"),
    "no offsets": without("data_offsets"),
    "a gap": header_of(ARRAYS) | {"odd": {"dtype": "BOOL", "shape": [2], "data_offsets": [55, 57]}},
    "a tensor twice": header_of(ARRAYS) | {"again": header_of(ARRAYS)["a.weight"]},
    "an entry that is a list": header_of(ARRAYS) | {"a.weight": [1]},
    "no tensor": {},
    "a list": b"[]",
    "no JSON": b"{{",
    "no UTF-8": b'{"\xff": 1}',
    "nothing": b"",
    "depth": b"[" * 100_000,
    "a number of many digits": b'{"a": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("header", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused_in_one_line(tmp_path, header):
    path = write(tmp_path / "a.safetensors", header)
    with pytest.raises(UserError, match=r"a\.safetensors is not a whole safetensors file") as caught:
        open_safetensors(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_a_length_that_lies_is_refused(tmp_path, length):
    path = write(tmp_path / "a.safetensors", header_of(ARRAYS), length=length)
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        open_safetensors(path)


def test_an_absurdly_long_header_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with open(path, "wb") as file:  # zeros that no disk holds
        file.write((2**33).to_bytes(8, "little"))
        file.truncate(2**34)
    tracemalloc.start()
    with pytest.raises(UserError, match="header would take 8,589,934,592 of 17,179,869,184 bytes"):
        open_safetensors(path)
    assert tracemalloc.get_traced_memory()[1] < 100_000 < MAX_HEADER
    tracemalloc.stop()


def test_mutated_headers_are_refused_or_harmless_within_little_memory(tmp_path, rng):
    """One to four bytes of length and header changed at random: a UserError, or arrays of the file's own size."""
    whole = write(tmp_path / "a.safetensors", header_of(ARRAYS)).read_bytes()
    head, path, refused = len(whole) - len(DATA), tmp_path / "b.safetensors", 0
    likely = np.frombuffer(b'0123456789[]{},:"-e.FIB', np.uint8)
    tracemalloc.start()
    for _ in range(500):
        mutated = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, head, rng.integers(1, 5))
        mutated[places] = rng.choice(likely, len(places)) if rng.random() < 0.7 else rng.integers(0, 256, len(places))
        path.write_bytes(mutated.tobytes())
        try:
            weights = open_safetensors(path)
        except UserError as error:
            assert "is not a whole safetensors file" in str(error)
            refused += 1
        else:  # only a name, the metadata or a dtype's letter has changed
            readable = [key for key, tensor in weights.tensors.items() if tensor.kind in DTYPES.keys() - {"BF16"}]
            assert sum(weights[key].nbytes for key in readable) <= len(DATA)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 300 < refused < 500
    assert peak < 1_000_000


UNREADABLE = [
    ("F8_E4M3", [24]), ("F8_E5M2", [2, 12]), ("F8_E8M0", [4, 6]), ("F8_E4M3FNUZ", [24]), ("F8_E5M2FNUZ", [24]),
    ("C64", [3]), ("F4", [48]), ("F6_E2M3", [32]), ("F6_E3M2", [4, 8]), ("X1", []), ("X1", [192]), ("I4", [48]),
]


@pytest.mark.parametrize("kind, shape", UNREADABLE)
def test_a_dtype_that_cannot_be_read_stops_nobody_who_does_not_ask_for_it(tmp_path, kind, shape):
    header = {
        "wanted": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
        "beside": {"dtype": kind, "shape": shape, "data_offsets": [0, 24]},
    }
    text = json.dumps(header).encode()
    data = bytes(24) + np.array([1, 2], "<f4").tobytes()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    weights = open_safetensors(tmp_path / "a.safetensors")
    assert weights["wanted"].tolist() == [1, 2] and len(weights) == 2
    with pytest.raises(UserError, match=f"a.safetensors: beside has the dtype '{kind}', which is not supported"):
        weights["beside"]
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data + b"more")
    with pytest.raises(UserError, match="is not a whole safetensors file"):  # its place is looked at all the same
        open_safetensors(tmp_path / "a.safetensors")


def test_half_bytes_may_be_more_than_the_bytes_of_the_file(tmp_path):
    fields = {"x": {"dtype": "F4", "shape": [9998], "data_offsets": [0, 4999]}}
    path = write(tmp_path / "a.safetensors", fields, bytes(4999))
    assert open_safetensors(path).tensors["x"].size == 4999


def test_a_weight_need_not_lie_at_a_multiple_of_its_size(tmp_path):
    """Behind three bytes of another dtype."""
    fields = {
        "beside": {"dtype": "F8_E5M2", "shape": [3], "data_offsets": [0, 3]},
        "wanted": {"dtype": "F64", "shape": [], "data_offsets": [3, 11]},
    }
    path = write(tmp_path / "a.safetensors", fields, b"\1\2\3" + np.float64(0.1).tobytes())
    assert open_safetensors(path)["wanted"] == 0.1


@pytest.mark.parametrize("ending", [*PICKLES, ".CKPT"])
def test_pickles_are_refused_with_the_reason(tmp_path, ending):
    with pytest.raises(UserError, match=r"is a pickle, which can run any code .* use a \.safetensors file"):
        open_safetensors(tmp_path / f"model{ending}")


def test_a_pointer_to_weights_that_git_has_not_fetched(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 3438167536\n")
    with pytest.raises(UserError, match="only points to the weights: run `git lfs pull`"):
        open_safetensors(path)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*a\.safetensors: no such file"):
        open_safetensors(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*b\.safetensors"):
        open_safetensors(tmp_path / "b.safetensors")


MEASURE = """
import resource, sys
from minild.models import CLIPTextModel
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = CLIPTextModel.from_pretrained(sys.argv[1], dtype=sys.argv[2])
print(base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sum(p.data.nbytes for p in model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_reading_takes_the_memory_of_the_model_and_one_tensor(tmp_path, dtype):
    """200 MB of weights, none above 17 MB: what reading adds to the process is little more than the model."""
    from minild.models import CLIPTextModel

    width, layers = 1024, 4
    config = {"vocab_size": 100, "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    CLIPTextModel.from_config(config).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 200e6
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes or KiB
    out = subprocess.run([sys.executable, "-c", MEASURE, tmp_path, dtype], capture_output=True, check=True, text=True)
    base, peak, size = map(int, out.stdout.split())
    assert size > 100e6
    assert (peak - base) * unit < size + 2 * 17e6
