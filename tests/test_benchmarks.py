"""The benchmarks' own arithmetic and text; PyTorch is not needed for these."""

import dataclasses
import json

import numpy as np
import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import alone, machine, objectives, profile, report, timing, works

from minild import checkpoints, models
from minild.errors import UserError
from minild.nn.layers import SILU
from minild.nn.resnet import ResnetBlock2D
from minild.training import run, stage
from minild.training.presets import StagePreset

MB = 2**20
RESULT = {
    "work": "W9",
    "title": "a work",
    "batch": 4,
    "side": 8,
    "operations": 30e9,
    "ways": {"minild": "parts", "PyTorch": "channels last"},
    "seconds": {
        "minild": {"minimum": 0.1, "median": 0.15, "runs": 5},
        "PyTorch": {"minimum": 0.25, "median": 0.3, "runs": 5},
    },
    "memory": {
        "minild": {"import": 30 * MB, "resident": 100 * MB, "device": None},
        "PyTorch": {"import": 300 * MB, "resident": 1536 * MB, "device": None},
    },
    "peers": {
        "OpenVINO": {
            "seconds": {
                "minild": {"minimum": 0.11, "median": 0.12, "runs": 5},
                "OpenVINO": {"minimum": 0.2, "median": 0.24, "runs": 5},
            },
            "memory": {"OpenVINO": {"import": 50 * MB, "resident": 200 * MB, "device": None}},
        }
    },
}
ALONE = {
    "work": "W8",
    "title": "minild something",
    "seconds": {"minild": {"minimum": 1.25, "median": 1.5, "runs": 3}},
    "found": {"all": 0.988, "drawn": 512},
}
KERNELS = {"OpenBLAS": "SkylakeX", "PyTorch": "AVX512"}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("key, count", [("W1", 4_192_900), ("W5", 921_031)])
def test_the_models_are_of_the_stated_size(key, count):
    [work] = works.chosen(key)
    assert getattr(models, work.model).from_config(work.config).parameter_count() == count


def test_works_are_chosen_by_name():
    everything = ["W1", "W2/64", "W2/2", "W3", "W4", "W5", "W6/forward", "W6/both", "W7", "W8"]
    assert [work.key for work in works.chosen(None)] == everything  # the training takes minutes
    assert [work.key for work in works.chosen("all")] == [*everything, "W9"]
    assert [work.key for work in works.chosen("W9,W6")] == ["W9", "W6/forward", "W6/both"]
    assert [work.key for work in works.chosen("W3,W2")] == ["W3", "W2/64", "W2/2"]
    assert [work.key for work in works.chosen("W2/2")] == ["W2/2"]
    with pytest.raises(UserError, match="unknown work 'W0': use all or W1, W2/64"):
        works.chosen("W1,W0")


def test_scaling_changes_one_size_and_passes_over_what_has_none():
    scaled = works.scaled(works.chosen("W1,W3,W5"))
    assert [work.batch for work in scaled if work.key == "W1"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [(work.batch, work.side) for work in scaled if work.key == "W3"] == [(2, s) for s in (32, 48, 64, 80, 96)]
    assert {work.key for work in scaled} == {"W1", "W3"}


def test_inputs_are_the_same_every_time_and_of_the_works_size():
    [train, decode, autoencoder, attend, both] = works.chosen("W1,W4,W5,W6")
    given = works.inputs(train)
    assert {name: x.shape for name, x in given.items()} == {
        "x": (64, 8, 8, 4), "t": (64,), "context": (64, 16, 64), "noise": (64, 8, 8, 4)
    }
    again = works.inputs(train)
    assert all((x == again[name]).all() for name, x in given.items())
    assert works.inputs(decode)["z"].shape == (1, 64, 64, 4)
    assert works.inputs(autoencoder)["noise"].shape == (32, 8, 8, 4)
    assert {name: x.shape for name, x in works.inputs(attend).items()} == dict.fromkeys("qkv", (1, 4096, 320))
    assert list(works.inputs(both)) == ["q", "k", "v", "dy"]


def test_images_reach_the_other_libraries_channels_first():
    x = np.arange(24).reshape(1, 2, 3, 4)
    assert works.channels_first(x)[0, 3, 1, 2] == x[0, 1, 2, 3] and works.channels_first(x).flags.c_contiguous
    assert works.channels_first(x[0]) is not None and (works.channels_first(x[0]) == x[0]).all()


def test_turns_alternate():
    order = []
    seconds = timing.turns(lambda name: order.append(name) or len(order), ("a", "b"), 3, pause=0)
    assert "".join(order) == "abbaab"
    assert seconds == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_the_summary_is_of_the_seconds():
    assert timing.summary([4.0, 1.0, 2.0, 9.0]) == {"minimum": 1.0, "median": 3.0, "runs": 4}


def test_the_difference_is_that_of_the_worst_array():
    theirs = {"large": np.array([100.0, -1.0]), "b": np.array([2.0, 4.0]), "rounding": np.array([1e-9])}
    ours = {"large": np.array([100.0, -1.5]), "b": np.array([2.0, 4.1]), "rounding": np.array([-1e-9])}
    apart, name = timing.difference(ours, theirs)
    assert name == "b" and apart == pytest.approx(0.025)
    apart, name = timing.difference(ours | {"large": np.array([np.nan, 1.0])}, theirs)
    assert name == "large" and not apart <= timing.TOLERANCE
    with pytest.raises(ValueError, match="different names or shapes"):
        timing.difference({"b": theirs["b"]}, theirs)


def test_a_row_holds_ratios_shares_and_memory():
    row = dict(zip(report.HEADERS, report.row(RESULT, 1e12)))
    assert (row["minild min"], row["PyTorch min"]) == ("100 ms", "250 ms")
    assert (row["ratio of min"], row["of medians"]) == ("0.40", "0.50")
    assert (row["GFLOP"], row["minild of peak"], row["PyTorch of peak"]) == ("30.0", "20%", "10%")
    assert (row["minild memory"], row["PyTorch memory"]) == ("100 MB", "1.50 GB")
    assert row["ways"] == "parts / channels last"
    assert dict(zip(report.HEADERS, report.row(RESULT | {"side": 0}, 1e12)))["side"] == "-"
    assert report.footnote([RESULT]).endswith("minild 30 MB, PyTorch 300 MB")


def test_a_peer_has_a_row_beside_the_minild_of_its_own_turns():
    [row] = report.peer_rows(RESULT)
    assert row == ("W9", "OpenVINO", "110 ms", "120 ms", "200 ms", "240 ms", "0.55", "0.50", "200 MB")


def test_a_command_has_a_row_with_what_it_gave():
    assert report.alone_row(ALONE) == ("W8", "minild something", "1.2 s", "1.5 s", "98.8% of 512 captions followed")
    assert report.alone_row(ALONE | {"found": {}})[-1] == "-"


def test_every_table_stands_under_its_instruction_set_and_kernels():
    figures = {"isa": "avx512", "kernels": KERNELS, "gemm": {"minild": 1e12}, "works": [RESULT], "alone": [ALONE]}
    lines = report.tables(figures).splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("| ---")]
    named = [i for i, line in enumerate(lines) if "AVX-512 (OpenBLAS: SkylakeX, PyTorch: AVX512)" in line]
    assert len(heads) == len(named) == 3
    assert all(before < head and head - before <= 3 for before, head in zip(named, heads))
    assert "Peers" not in report.tables(figures | {"works": [RESULT | {"peers": {}}], "alone": []})
    assert report.tables(figures | {"works": [], "alone": []}) == ""


def test_a_table_is_markdown_in_columns():
    lines = report.table(("name", "n"), [("a", "1"), ("longer", "1234")]).splitlines()
    assert lines == ["| name   |    n |", "| ------ | ---: |", "| a      |    1 |", "| longer | 1234 |"]


@pytest.mark.parametrize("seconds, text", [(1.2345, "1234 ms"), (0.0567, "56.7 ms"), (0.00123, "1.23 ms")])
def test_milliseconds(seconds, text):
    assert report.milliseconds(seconds) == text


def test_the_heading_names_the_machine_and_the_peaks():
    assert report.heading({"processor": "X, 2 cores", "NumPy": "2"}) == "processor: X, 2 cores\nNumPy: 2"
    assert "minild 330 GFLOP/s, PyTorch 346 GFLOP/s" in report.peaks({"minild": 330e9, "PyTorch": 346e9})


def test_a_profile_lists_the_slowest_first_and_what_is_left():
    [work] = works.chosen("W1")
    text = report.profile(work, [("linear", 3, 0.02), ("conv2d", 2, 0.05)], 0.1, "AVX2 (OpenBLAS: Haswell)")
    assert text.splitlines()[0].endswith("one thread, 100 ms; AVX2 (OpenBLAS: Haswell)")
    rows = [cells(line) for line in text.splitlines()[3:]]
    assert rows == [
        ["conv2d", "2", "50.0 ms", "50.0%"], ["linear", "3", "20.0 ms", "20.0%"], ["all else", "1", "30.0 ms", "30.0%"]
    ]


def test_the_watch_sees_every_operation_and_leaves_no_trace(rng):
    block = ResnetBlock2D(4, 6, temb_channels=5, groups=2).initialise(rng)
    x, temb = rng.standard_normal((2, 4, 4, 4), np.float32), rng.standard_normal((2, 5), np.float32)
    watch, op = profile.Stopwatch(), SILU.op
    with profile.watching(watch):
        y, cache = block.forward(x, temb)
        block.backward(y, cache)
    once = {"group_norm_silu": 2, "silu": 1, "conv2d": 3, "linear": 1}
    expected = once | {f"{name}_backward": count for name, count in once.items()} | {"Parameter.accumulate": 12}
    assert watch.calls == expected
    assert all(seconds > 0 for seconds in watch.seconds.values())
    assert SILU.op is op
    block.forward(x, temb)
    assert watch.calls == expected


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--repeats", "x"], ["--device", "tpu"], ["--way", "no"]])
def test_a_wrong_argument_exits_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmarks.main(arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--works", "W00"], "unknown work 'W00'"),
        (["--profile", "W0"], "unknown work 'W0'"),
        (["--works", "W4", "--scaling"], "--scaling is of W1 and W3"),
        (["--works", "W3", "--scaling", "--save"], "--save keeps no --scaling"),
        (["--profile", "W1,W7"], "--profile is of works"),
        (["--isa", "avx2,avx1024"], "unknown instruction set 'avx1024': use avx512 or avx2"),
        (["--isa", "avx2", "--device", "cuda"], "--isa is of --device cpu"),
        (["--tables", "missing"], "no figures are kept in missing"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert benchmarks.main(arguments) == 2
    output = capsys.readouterr()
    assert words in output.err and output.err.count("\n") == 1 and not output.out


def test_without_a_gpu_it_says_so_and_measures_nothing(capsys, monkeypatch):
    def refuse(name):
        raise UserError("no GPU found for --device cuda: use --device cpu")

    monkeypatch.setattr(benchmarks, "get_device", refuse)
    assert benchmarks.main(["--device", "cuda"]) == 0
    assert capsys.readouterr().out == "nothing measured: no GPU found for --device cuda: use --device cpu\n"


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(machine.os, "nice", lambda step: 0)
    monkeypatch.setattr(machine, "load", lambda: 0.1)
    assert machine.warning() is None
    monkeypatch.setattr(machine.os, "nice", lambda step: 19)
    assert machine.warning() == "this process gives way to others (nice 19)"
    monkeypatch.setattr(machine, "load", lambda: 3.14)
    assert "busy, 3.1 processes" in machine.warning()


@pytest.fixture
def measured(monkeypatch):
    """Nothing is measured: every work gives RESULT, every command ALONE. -> what was asked, by work."""
    asked = {}
    rates = iter([{"minild": 1e12, "PyTorch": 9e11}, {"minild": 2e12, "PyTorch": 8e11}] * 2)  # before and after

    def give(result):
        return lambda work, where, *others: asked.update({work.key: (where, *others)}) or result | {"work": work.key}

    monkeypatch.setattr(timing, "survey", lambda where, peers: ({"NumPy": "2"}, KERNELS))
    monkeypatch.setattr(timing, "gemm_peaks", lambda where: next(rates))
    monkeypatch.setattr(timing, "compare", give(RESULT))
    monkeypatch.setattr(alone, "measure", give(ALONE))
    monkeypatch.setattr(benchmarks.peers, "left_out", lambda peer, isa, device: "is not here")
    return asked


def test_the_figures_are_kept_with_the_machines(capsys, tmp_path, measured):
    assert benchmarks.main(["--works", "W1,W8", "--repeats", "3", "--save", str(tmp_path)]) == 0
    assert measured == {"W1": (timing.Where(), 3, None, []), "W8": (timing.Where(), 3)}
    figures = json.loads((tmp_path / "speed-avx512.json").read_text(encoding="utf-8"))
    assert figures["works"] == [RESULT | {"work": "W1"}] and figures["alone"] == [ALONE]
    assert figures["gemm"] == {"minild": 2e12, "PyTorch": 9e11} and figures["kernels"] == KERNELS
    assert set(figures["machine"]) == {"processor", "system", "minild", "NumPy"}
    output = capsys.readouterr()
    assert "| W1 " in output.out and "| W8 " in output.out and "load before: " in output.out
    assert "OpenVINO is not here" in output.err


def test_each_instruction_set_is_measured_in_turn_and_kept_apart(tmp_path, measured, capsys):
    assert benchmarks.main(["--works", "W1", "--isa", "avx512,avx2", "--save", str(tmp_path)]) == 0
    assert measured["W1"][0] == timing.Where("cpu", "avx2")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["speed-avx2.json", "speed-avx512.json"]
    capsys.readouterr()
    assert benchmarks.main(["--tables", str(tmp_path)]) == 0
    assert "| minild, AVX-512 |" in capsys.readouterr().out


def test_what_cannot_be_kept_is_refused_before_anything_is_measured(tmp_path, measured, capsys):
    assert benchmarks.main(["--works", "W1", "--save", str(tmp_path / "missing")]) == 2
    assert "cannot write" in capsys.readouterr().err and not measured


def test_the_objectives_loss_is_the_mean_of_its_last_tenth(tmp_path):
    lines = [{"stage": "autoencoder", "step": 10, "loss": 9.0}, {"stage": "diffusion", "step": 5, "warning": "told"}]
    lines += [{"stage": "diffusion", "step": 10 * i, "loss": float(i)} for i in range(1, 31)]
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    checkpoints.write(tmp_path, {"stage": "diffusion", "taken": {"autoencoder": 4, "diffusion": 305}}, {})
    assert objectives.last_loss(tmp_path) == {"loss": 29.0, "trained": 305}
    (folder / "metrics.jsonl").write_text(json.dumps(lines[0]))
    assert objectives.last_loss(tmp_path)["loss"] is None


def test_objectives_share_an_autoencoder_and_are_gone_on_with(tmp_path, monkeypatch, capsys):
    small = StagePreset(learning_rate=1e-3, batch_size=8)
    sizes = {"channels": (8, 8, 8), "unet_channels": (8, 8), "text_width": 16, "text_layers": 1, "pictures": 16}
    preset = dataclasses.replace(objectives.SHAPES, autoencoder=small, diffusion=small, **sizes)
    monkeypatch.setattr(objectives, "SHAPES", preset)
    monkeypatch.setattr(run, "SAMPLES", 1)
    monkeypatch.setattr(stage, "SHEETS", 1)
    shares = dict.fromkeys(("all", "withheld", "shapes", "colours", "relation"), 0.25)
    figures = {"psnr": 20.0, "drawn": 2, "steps": 3, "guidance_scale": 1.5, "seed": 0} | shares
    asked = []
    monkeypatch.setattr(objectives, "evaluate", lambda *a, **k: asked.append((a[3:], k)) or figures)
    command = ["--first-steps", "2", "--count", "2", "--sampler-steps", "3", "--folder", str(tmp_path / "runs")]
    command += ["--output", str(tmp_path / "table"), "--objectives", "v_prediction,flow", "--steps"]
    assert objectives.main([*command, "3"]) == 0
    assert asked == [((2, 0, 3, None), {"sampler": name}) for name in ("ddim", "flow-euler")]
    results = json.loads((tmp_path / "table.json").read_text())
    assert [(r["objective"], r["trained"], r["all"]) for r in results] == [("v_prediction", 3, 0.25), ("flow", 3, 0.25)]
    assert "| flow         |            25.0% |" in (tmp_path / "table.md").read_text()
    vaes = [tmp_path / "runs" / n / "vae" / "diffusion_pytorch_model.safetensors" for n in ("first", "flow")]
    assert vaes[0].read_bytes() == vaes[1].read_bytes()
    before = checkpoints.newest(tmp_path / "runs" / "first").folder.stat().st_mtime_ns
    assert objectives.main([*command, "5"]) == 0
    assert [r["trained"] for r in json.loads((tmp_path / "table.json").read_text())] == [5, 5]
    assert checkpoints.newest(tmp_path / "runs" / "first").folder.stat().st_mtime_ns == before
    assert objectives.main([*command[:-3], "--objectives", "eps", "--steps", "3"]) == 2
    assert "unknown objective 'eps': use some of epsilon" in capsys.readouterr().err
    assert objectives.main([*command, "5", "--seed", "1"]) == 2
