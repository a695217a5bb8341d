"""The benchmarks' own arithmetic and text; PyTorch is not needed for these."""

import dataclasses
import json

import numpy as np
import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import machine, objectives, profile, report, timing, works

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
}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("key, count", [("W1", 4_192_900), ("W5", 921_031)])
def test_the_models_are_of_the_stated_size(key, count):
    [work] = works.chosen(key)
    assert getattr(models, work.model).from_config(work.config).parameter_count() == count


def test_works_are_chosen_by_name():
    assert [work.key for work in works.chosen(None)] == ["W1", "W2/64", "W2/2", "W3", "W4", "W5"]
    assert [work.key for work in works.chosen("W3,W2")] == ["W3", "W2/64", "W2/2"]
    assert [work.key for work in works.chosen("W2/2")] == ["W2/2"]
    with pytest.raises(UserError, match="unknown work 'W6': use W1, W2/64"):
        works.chosen("W1,W6")


def test_scaling_changes_one_size_and_passes_over_what_has_none():
    scaled = works.scaled(works.chosen("W1,W3,W5"))
    assert [work.batch for work in scaled if work.key == "W1"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [(work.batch, work.side) for work in scaled if work.key == "W3"] == [(2, s) for s in (32, 48, 64, 80, 96)]
    assert {work.key for work in scaled} == {"W1", "W3"}


def test_inputs_are_the_same_every_time_and_of_the_works_size():
    [train, decode, autoencoder] = works.chosen("W1,W4,W5")
    given = works.inputs(train)
    assert {name: x.shape for name, x in given.items()} == {
        "x": (64, 8, 8, 4), "t": (64,), "context": (64, 16, 64), "noise": (64, 8, 8, 4)
    }
    again = works.inputs(train)
    assert all((x == again[name]).all() for name, x in given.items())
    assert works.inputs(decode)["z"].shape == (1, 64, 64, 4)
    assert works.inputs(autoencoder)["noise"].shape == (32, 8, 8, 4)


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
    assert report.footnote([RESULT]).endswith("minild 30 MB, PyTorch 300 MB")


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
    text = report.profile(work, [("linear", 3, 0.02), ("conv2d", 2, 0.05)], 0.1)
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
        (["--works", "W9"], "unknown work 'W9'"),
        (["--profile", "W0"], "unknown work 'W0'"),
        (["--works", "W4", "--scaling"], "--scaling is of W1 and W3"),
        (["--json", "missing/figures.json"], "cannot write missing/figures.json"),
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


def test_the_figures_are_written_with_the_machines(capsys, tmp_path, monkeypatch):
    rates = iter([{"minild": 1e12, "PyTorch": 9e11}, {"minild": 2e12, "PyTorch": 8e11}])  # before and after
    monkeypatch.setattr(timing, "gemm_peaks", lambda device: (next(rates), {"NumPy": "2"}))
    monkeypatch.setattr(timing, "compare", lambda *given: RESULT)
    path = tmp_path / "figures.json"
    assert benchmarks.main(["--works", "W1", "--json", str(path)]) == 0
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["works"] == [RESULT] and figures["gemm"] == {"minild": 2e12, "PyTorch": 9e11}
    assert set(figures["machine"]) == {"processor", "system", "minild", "load before", "NumPy"}
    assert "| W9 " in capsys.readouterr().out


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
