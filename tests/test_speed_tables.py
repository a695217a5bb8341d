"""Whole commands in the benchmarks, the figures that are kept, and the README's tables of them."""

import json

import pytest
from benchmarks import alone, isa, kept, works
from benchmarks.timing import Where

from minild.errors import UserError

MB = 2**20


def summary(median):
    return {"minimum": median / 2, "median": median, "runs": 3}


def work(key, ours, theirs, **peers):
    taken = {"minild": 100 * MB, "PyTorch": 2048 * MB}
    memory = {name: {"import": MB, "resident": size, "device": None} for name, size in taken.items()}
    pairs = {
        name.replace("_", " "): {"seconds": {"minild": summary(ours), name.replace("_", " "): summary(seconds)}}
        for name, seconds in peers.items()
    }
    seconds = {"minild": summary(ours), "PyTorch": summary(theirs)}
    return {"work": key, "title": "a work", "batch": 2, "side": 8, "seconds": seconds, "memory": memory, "peers": pairs}


def figures(name, works=(), alone=(), **others):
    machine = {"processor": "A Processor, 2 cores", "minild": "1"}
    rates = {"minild": 4e11, "PyTorch": 2e11}
    return {"isa": name, "machine": machine, "kernels": {"OpenBLAS": "X"}, "load": 0.0, "gemm": rates, "left out": {},
            "works": list(works), "alone": list(alone)} | others  # fmt: skip


COMMAND = {"work": "W7", "title": "minild evaluate", "seconds": {"minild": summary(61.0)},
           "found": {"all": 0.99, "drawn": 512}}  # fmt: skip


def rows(text, first):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[0].startswith(first)]


def test_the_readmes_tables_have_a_column_of_each_set():
    both = [work("W1", 0.161, 0.229), work("W3", 4.1, 6.72, OpenVINO=8.2, ONNX_Runtime=4.1)]
    wide = figures("avx512", both, [COMMAND])
    narrow = figures("avx2", [work("W3", 6, 8, OpenVINO=12)], **{"left out": {"ONNX Runtime": "cannot be held"}})
    text = kept.tables({"avx512": wide, "avx2": narrow})
    names = ["minild", "PyTorch", "ratio", "memory at most"]
    [header] = rows(text, "Work")[:1]
    assert header == ["Work", *(f"{name}, {title}" for title in ("AVX-512", "AVX2") for name in names)]
    [first], [third, peers] = rows(text, "W1"), rows(text, "W3")
    assert first == ["W1 a work, batch 2", "161 ms", "229 ms", "0.70", "100 MB / 2.00 GB", "-", "-", "-", "-"]
    assert third[1:4] == ["4.1 s", "6.7 s", "0.61"] and third[5:8] == ["6.0 s", "8.0 s", "0.75"]
    assert peers[1:] == ["8.2 s (0.50)", "4.1 s (1.00)", "12.0 s (0.50)", "-"]
    [alone_row] = rows(text, "W7")
    assert alone_row[1:] == ["61.0 s", "99.0% of 512 captions followed", "-", "-"]
    assert "**AVX-512**: A Processor, 2 cores; OpenBLAS X; GFLOP/s of a matrix product: minild 400, PyTorch 200" in text
    assert "  - ONNX Runtime cannot be held" in text and "busy" not in text


def test_with_one_set_there_is_one_column_and_no_empty_table():
    text = kept.tables({"avx2": figures("avx2", [work("W1", 1, 2)], load=2.04)})
    assert "AVX-512" not in text and sum(line.startswith("| ---") for line in text.splitlines()) == 1
    assert "measured on a busy machine (2.0)" in text


def test_a_work_that_is_measured_again_replaces_itself():
    found = figures("avx2")
    for key, seconds in (("W5", 1), ("W1", 2), ("W5", 3)):
        kept.add(found, "works", work(key, seconds, 1))
    assert [(each["work"], each["seconds"]["minild"]["median"]) for each in found["works"]] == [("W1", 2), ("W5", 3)]
    kept.add(found, "works", work("W1", 9, 1) | {"batch": 7})  # of --scaling
    assert [each["batch"] for each in found["works"]] == [2, 7, 2]
    kept.raise_peaks(found, {"minild": 5e11, "PyTorch": 1e11})
    assert found["gemm"] == {"minild": 5e11, "PyTorch": 2e11}


def test_what_was_kept_of_the_same_machine_stays(tmp_path):
    kept.write(tmp_path, figures("avx2", [work("W1", 1, 2)], load=0.3))
    again = kept.begin(tmp_path, figures("avx2", load=0.2))
    assert [each["work"] for each in again["works"]] == ["W1"] and again["load"] == 0.3
    assert json.loads((tmp_path / "speed-avx2.json").read_text()) == again
    for other in ({"machine": {"processor": "Another"}}, {"kernels": {"OpenBLAS": "Y"}}):
        with pytest.raises(UserError, match=r"speed-avx2\.json is of another machine or of other libraries"):
            kept.begin(tmp_path, figures("avx2", **other))
    assert kept.begin(tmp_path, figures("avx512"))["works"] == []
    assert list(kept.read(tmp_path)) == ["avx512", "avx2"]


@pytest.fixture
def commands(monkeypatch):
    """Commands that are not run: each takes a second and leaves what evaluate() says. -> what was asked."""
    asked, share = [], {"all": 0.96, "drawn": 512, "psnr": 30.0}

    def run(arguments, where, folder):
        asked.append(arguments[0])
        if arguments[0] == "evaluate":
            (alone.Path(folder) / "figures.json").write_text(json.dumps(share))
        return float(len(asked))

    monkeypatch.setattr(alone, "run", run)
    return asked, share


def test_a_command_is_timed_and_what_it_gave_is_told(commands):
    evaluate, picture = works.chosen("W7,W8")
    result = alone.measure(evaluate, Where(), repeats=2)
    assert result["seconds"]["minild"] == {"minimum": 1.0, "median": 1.5, "runs": 2}
    assert result["found"] == {"all": 0.96, "drawn": 512}
    assert alone.measure(picture, Where())["seconds"]["minild"]["runs"] == picture.repeats


def test_a_training_that_falls_short_has_no_time(commands):
    asked, share = commands
    [training] = works.chosen("W9")
    result = alone.measure(training, Where())
    assert asked == ["train", "evaluate"]
    assert result["seconds"]["minild"]["median"] == 1.0 and result["found"]["all"] == 0.96  # of the training alone
    share["all"] = 0.91
    with pytest.raises(UserError, match=r"W9: 91.0% of the captions followed, 92% expected"):
        alone.measure(training, Where())


def test_a_command_runs_in_a_process_of_its_own(tmp_path):
    assert 0 < alone.run(("info", "shapes"), Where(), tmp_path) < 600
    with pytest.raises(UserError, match=r"^minild info .*missing: .*missing"):
        alone.run(("info", "{folder}/missing"), Where(), tmp_path)


@pytest.mark.skipif(alone.isa.numpy_features().get("X86_V3") is None, reason="not a NumPy for x86-64 by levels")
def test_a_command_that_ran_on_other_kernels_has_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(isa, "environment", lambda name: {"OPENBLAS_CORETYPE": "Nehalem"})
    with pytest.raises(UserError, match=r"did not take effect.*OpenBLAS says 'Nehalem'"):
        alone.run(("info", "shapes"), Where("cpu", "avx2"), tmp_path)
