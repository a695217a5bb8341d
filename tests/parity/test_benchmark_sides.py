"""The benchmarks' sides do the same work: minild, PyTorch and, where they are installed, the libraries that infer."""

import ctypes
import importlib.util
from dataclasses import replace

import pytest
from benchmarks import ours, timing, works
from benchmarks.peers import EXPORT, OnnxRuntime, OpenVINO

from parity.reference import torch

ATTENTION = {"tokens": 48, "config": {"heads": 2, "width": 16}}
AUTOENCODER = works.AUTOENCODER | {"block_out_channels": [8, 8, 16]}
UNET = works.UNET | {"block_out_channels": [8, 16], "cross_attention_dim": 8}
SMALL = {
    "W1": {"config": UNET, "batch": 2, "side": 4, "tokens": 3},
    "W2/2": {"config": UNET, "side": 4, "tokens": 3},
    "W4": {"config": AUTOENCODER | {"mid_block_add_attention": True}, "side": 4},
    "W5": {"config": AUTOENCODER, "batch": 2, "side": 8},
    "W6/forward": ATTENTION,
    "W6/both": ATTENTION,
}


@pytest.fixture
def theirs():
    """PyTorch's side; it sets how many threads the process has."""
    from benchmarks import theirs

    threads = torch.get_num_threads()
    yield theirs
    torch.set_num_threads(threads)


def small(key):
    [work] = works.chosen(key)
    return replace(work, **SMALL[key])


def results(side, work, folder):
    side.prepare(side.open(work, folder)[0])
    return side.results()


@pytest.mark.parametrize("key", SMALL)
def test_both_libraries_do_the_same(key, theirs, tmp_path):
    work = small(key)
    if work.model:
        works.Writer().write(work, tmp_path)
    mine, reference = ours.Minild("cpu"), theirs.PyTorch("cpu")
    expected = results(reference, work, tmp_path)
    apart, name = timing.difference(results(mine, work, tmp_path), expected)
    assert apart < 1e-4, name
    assert reference.operations_counted() > 0
    mine.stack.close()


def test_attention_alone_is_counted_by_hand(theirs, tmp_path):
    """q kᵀ and the mixture, twice two operations for each score and channel; the backward has five such products."""
    work, side = small("W6/forward"), theirs.PyTorch("cpu")
    results(side, work, tmp_path)
    forward = 2 * 2 * work.tokens**2 * work.config["width"]
    assert side.operations_counted() == forward
    results(side, small("W6/both"), tmp_path)
    assert side.operations_counted() == forward * 7 / 2


@pytest.mark.slow
@pytest.mark.parametrize("key", ["W2/2", "W4"])
@pytest.mark.parametrize("peer, package", [(OpenVINO, "openvino"), (OnnxRuntime, "onnxruntime")])
def test_a_peer_reads_the_same_weights(key, peer, package, theirs, tmp_path):
    missing = [name for name in (package, *EXPORT) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install -e '.[peers]'")
    from benchmarks.export import Exporter

    work = small(key)
    works.Writer().write(work, tmp_path)
    Exporter("cpu").export(work, tmp_path)
    apart, name = timing.difference(results(ours.Minild("cpu"), work, tmp_path), results(peer("cpu"), work, tmp_path))
    assert apart < 1e-4, name


def test_what_c_libraries_print_is_caught(theirs, capfd):
    text = theirs.printed(lambda: ctypes.CDLL(None).puts(b"from C"))
    assert text == "from C\n" and capfd.readouterr().out == ""
