"""The model of how a training scales over processes, and the table that it gave."""

from pathlib import Path

import pytest
from benchmarks import ranks
from benchmarks.ranks import MEASURED, Network, Training, efficiency, half_at, ring, step_seconds, table

SLOW = Network(bandwidth=1000.0, latency=1.0)
FREE = Network(float("inf"), 0.0)


def test_a_ring_sends_twice_almost_the_whole():
    assert ring(4, 4000, SLOW) == 2 * 3 * (1000 / 1000 + 1)
    assert ring(1, 4000, SLOW) == 0
    assert ring(1000, 4000, Network(1000.0, 0.0)) == pytest.approx(8, rel=0.002)  # 2 (N - 1) / N · bytes / bandwidth


def test_what_a_step_is_made_of():
    training = Training(parameters=1000, batch=8, draw=0.5, compute=3.0, update=2.0)
    assert step_seconds(training, 1, SLOW) == 8 * (0.5 + 3) + 2
    assert step_seconds(training, 4, SLOW) == 8 * (0.5 + 3 / 4) + 2 + 2 * 3 * (1 + 1) + 3 * 2 * 2
    grown = training._replace(grows=True)
    assert step_seconds(grown, 4, FREE) == 4 * 8 * (0.5 + 3 / 4) + 2


def test_efficiency():
    training = Training(parameters=1000, batch=8, draw=0.0, compute=3.0, update=0.0)
    assert efficiency(training, 64, FREE) == efficiency(training._replace(grows=True), 64, FREE) == 1
    assert efficiency(training, 1, SLOW) == 1 and half_at(training, FREE) is None
    assert efficiency(training._replace(update=24.0), 2, FREE) == 48 / (2 * 36)  # Amdahl's law
    assert half_at(training._replace(update=24.0), FREE) == 4
    assert efficiency(training._replace(draw=3.0, grows=True), 4, FREE) == (6 * 8) / (8 * (4 * 3 + 3))


def test_results_has_the_table_of_what_was_measured():
    text = (Path(ranks.__file__).parent / "RESULTS.md").read_text(encoding="utf-8")
    assert "\n".join(table(ranks.rows(MEASURED))) in text
