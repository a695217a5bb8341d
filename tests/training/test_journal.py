"""What a training shows and writes, and how far along it is by steps or by the clock."""

import json

import numpy as np
import pytest
from device_double import count_synchronisations
from PIL import Image

from minild.backend import to_device
from minild.training import budget as budgets
from minild.training.budget import Budget
from minild.training.journal import Journal, plot_losses


@pytest.fixture
def clock(monkeypatch):
    """clock.now, in seconds: what time.monotonic says to a Budget."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(budgets, "time", clock)
    return clock


def test_a_budget_of_steps(clock):
    budget = Budget(steps=8, taken=2, elapsed=30.0)
    assert budget.progress == 0.25
    clock.now += 5
    assert (budget.progress, budget.elapsed) == (0.25, 35)
    budget.taken = 8
    assert budget.progress == 1
    budget.taken = 9
    assert budget.progress == 1


def test_a_budget_of_seconds(clock):
    budget = Budget(seconds=80.0, elapsed=20.0)
    assert (budget.progress, budget.elapsed) == (0.25, 20)
    budget.taken = 1_000_000
    clock.now += 40
    assert budget.progress == 0.75
    clock.now += 40
    assert (budget.progress, budget.elapsed) == (1, 100)
    assert Budget(seconds=-3.0).progress == 0 and Budget(seconds=-3.0, elapsed=1.0).progress == 1  # nothing is left


def test_of_steps_and_seconds_what_is_used_up_first_ends_a_budget(clock):
    budget = Budget(seconds=100.0, steps=8, taken=2, elapsed=20.0)
    assert budget.progress == 0.25  # by its steps
    clock.now += 30
    assert budget.progress == 0.5  # by the clock
    budget.taken = 8
    assert budget.progress == 1
    assert Budget(seconds=10.0, steps=8, elapsed=11.0).progress == 1


def test_a_pause_takes_no_time(clock):
    budget = Budget(seconds=100.0)
    clock.now += 10
    with budget.paused():
        clock.now += 70
    assert (budget.elapsed, budget.progress) == (10, 0.1)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_tenth_step_writes_means_and_only_it_waits_for_the_device(tmp_path, clock, device, capsys):
    budget = Budget(steps=50, taken=20, elapsed=7.0)
    waiting = []
    with Journal(tmp_path, "diffusion", budget, batch_size=6) as journal:
        for i in range(25):
            budget.taken += 1
            clock.now += 0.5
            metrics = {name: to_device(np.float32([value]), device)[0] for name, value in (("loss", i), ("l1", 2 * i))}
            with count_synchronisations() as waits:
                journal.note(metrics)
            waiting.append(bool(waits.count))
        assert len(lines(tmp_path / "metrics.jsonl")) == 2  # at once, not when it is closed
    if device == "double":
        assert [i for i, waited in enumerate(waiting) if waited] == [9, 19]
    first, second = lines(tmp_path / "metrics.jsonl")
    assert first == {
        "stage": "diffusion",
        "step": 30,
        "seconds": 12.0,
        "progress": 0.6,
        "loss": 4.5,
        "l1": 9.0,
        "images_per_second": 12.0,
    }
    assert second == first | {"step": 40, "seconds": 17.0, "progress": 0.8, "loss": 14.5, "l1": 29.0}
    shown = capsys.readouterr().err
    assert "diffusion" in shown and "step 40, loss 14.5000, 12 images/s" in shown and "90%" in shown


def test_a_journal_adds_to_what_is_there(tmp_path, clock):
    for stage in ("autoencoder", "diffusion"):
        with Journal(tmp_path, stage, Budget(steps=10), 1) as journal:
            for _ in range(10):
                clock.now += 1
                journal.note({"loss": 1.0})
    assert [line["stage"] for line in lines(tmp_path / "metrics.jsonl")] == ["autoencoder", "diffusion"]


def test_a_stage_of_a_few_steps_ends_at_all_of_it(tmp_path, clock, capsys):
    budget = Budget(steps=3)
    with Journal(tmp_path, "diffusion", budget, 1) as journal:
        for _ in range(3):
            budget.taken += 1
            journal.note({"loss": 1.0})
    assert "diffusion 100%" in capsys.readouterr().err.split("\r")[-1]


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def write_metrics(path, curves):
    entries = [{"stage": stage, "step": s, "loss": l} for stage, points in curves.items() for s, l in points]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def blue(path):
    """Where the curves are."""
    picture = pixels(path)
    return abs(picture - (0, 114, 178)).max(axis=2) < 60


def test_the_plot_has_a_falling_curve_for_each_stage(tmp_path):
    metrics, plot = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    falling = [(10 * i, 10.0 ** (-i / 10)) for i in range(1, 21)]
    write_metrics(metrics, {"autoencoder": falling, "diffusion": [(10, 0.5), (20, 2.0)]})
    plot_losses(metrics, plot)
    curves = blue(plot)
    left, right = np.split(curves, 2, axis=1)
    for curve, sign in ((left, 1), (right, -1)):
        rows, columns = np.nonzero(curve)
        assert len(set(columns)) > 150
        first, last = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
        assert sign * (last - first) > 150  # downwards is a higher row
    rows, columns = np.nonzero(left)
    middle = columns.min() + np.ptp(columns) // 2
    assert rows[columns == middle].mean() == pytest.approx((rows.min() + rows.max()) / 2, abs=6)  # a line: log axis


@pytest.mark.parametrize(
    "points",
    [[], [(10, 0.25)], [(10, 0.5), (20, float("nan")), (30, 0.25)], [(10, float("nan"))], [(10, 0.0), (20, 1.0)]],
    ids=["none", "one", "diverged", "all diverged", "zero"],
)
def test_losses_that_make_no_curve_are_no_fault(tmp_path, points):
    write_metrics(tmp_path / "metrics.jsonl", {"autoencoder": points})
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert pixels(tmp_path / "loss.png").shape[1] == 480
    assert blue(tmp_path / "loss.png").any() == (len([l for _, l in points if l > 0]) > 1)
