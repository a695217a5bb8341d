"""The loop of a stage: when it draws, saves, stops, and what Ctrl-C does to it."""

import signal
import threading

import pytest

from minild.training import stage
from minild.training.budget import Budget
from minild.training.stage import SAVE_EVERY, SHEETS, run_stage

pytestmark = pytest.mark.usefixtures("ctrl_c")


class Steps:
    """Stands for training_steps, and counts; `at` is {step: function to call within it}."""

    def __init__(self, budget, at=None):
        self.budget, self.at, self.progresses, self.ended = budget, at or {}, [], False

    def __iter__(self):
        while self.budget.progress < 1:
            self.progresses.append(self.budget.progress)
            self.at.get(len(self.progresses), lambda: None)()
            self.budget.taken += 1
            yield self.budget.taken, {"loss": 1.0}
        self.ended = True


@pytest.fixture
def run(tmp_path):
    """run(steps) -> what happened: names of the sheets and the steps at which it saved."""
    events = []

    def call(steps):
        def draw(path):
            assert path.parent == tmp_path
            events.append(path.name)

        run_stage("diffusion", steps, 1, steps.budget, tmp_path, draw, lambda: events.append(steps.budget.taken))
        return events

    call.events = events
    return call


def test_a_stage_takes_its_steps_and_draws_its_sheets(run):
    steps = Steps(Budget(steps=20))
    events = run(steps)
    assert steps.progresses == [i / 20 for i in range(20)]
    assert events == [f"diffusion-{20 * (i + 1) // SHEETS:06d}.png" for i in range(SHEETS)] + [20]
    assert steps.ended


def test_a_resumed_stage_goes_on_from_where_it_was(run, monkeypatch):
    monkeypatch.setattr(stage, "SHEETS", 2)
    steps = Steps(Budget(steps=10, taken=6))
    assert run(steps) == ["diffusion-000010.png", 10]
    assert steps.progresses == [0.6, 0.7, 0.8, 0.9]


def test_a_finished_stage_takes_no_step(run):
    steps = Steps(Budget(steps=5, taken=5))
    assert run(steps) == [5]
    assert steps.progresses == [] and steps.ended


@pytest.mark.parametrize(("seconds", "told"), [(10, True), (60, False)])
def test_a_stage_without_time_for_a_step_says_so(run, monkeypatch, capsys, seconds, told):
    monkeypatch.setattr(Budget, "elapsed", property(lambda self: 20.0 + self.taken))
    run(Steps(Budget(seconds=seconds)))
    assert ("stage diffusion had no time for a step" in capsys.readouterr().err) == told


def test_a_stage_saves_now_and_then(run, monkeypatch):
    monkeypatch.setattr(stage, "SHEETS", 1)
    budget = Budget(steps=6)
    monkeypatch.setattr(Budget, "elapsed", property(lambda self: 50.0 * self.taken))
    assert SAVE_EVERY == 120
    assert run(Steps(budget)) == [3, "diffusion-000006.png", 6, 6]


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_lets_the_step_end_saves_and_is_passed_on(run):
    before = signal.getsignal(signal.SIGINT)
    steps = Steps(Budget(steps=4 * SHEETS), {3: interrupt})
    with pytest.raises(KeyboardInterrupt):
        run(steps)
    assert len(steps.progresses) == 3 and run.events == [3]
    assert not steps.ended
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_is_not_held_up(run):
    before = signal.getsignal(signal.SIGINT)

    def twice():
        interrupt()
        while signal.getsignal(signal.SIGINT) is not before:
            pass  # until Python has handled the first
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        run(Steps(Budget(steps=9), {2: twice}))
    assert run.events == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fault_gives_the_interrupt_back(run):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        run(Steps(Budget(steps=9), {2: lambda: 1 / 0}))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stage_runs_on_any_thread(run):
    steps = Steps(Budget(steps=3))
    thread = threading.Thread(target=run, args=(steps,))
    thread.start()
    thread.join()
    assert steps.ended and run.events[-1] == 3
