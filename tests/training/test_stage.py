"""The loop of a stage: when it draws, saves, stops, and what Ctrl-C does to it."""

import contextlib
import signal
import threading

import pytest

from minild.training import stage
from minild.training.budget import Budget
from minild.training.stage import SAVE_EVERY, SHEETS, run_stage


class FakeTrainer:
    """Counts its steps; `at` is {step: function to call within it}."""

    batch_size = 1

    def __init__(self, at=None):
        self.at, self.progresses, self.average, self.adopted = at or {}, [], False, False

    def step(self, progress):
        self.progresses.append(progress)
        self.at.get(len(self.progresses), lambda: None)()
        return {"loss": 1.0}

    @contextlib.contextmanager
    def averaged(self):
        self.average = True
        yield
        self.average = False

    def adopt_average(self):
        self.adopted = True


@pytest.fixture
def run(tmp_path):
    """run(trainer, budget) -> what happened: names of the sheets and the steps at which it saved."""
    events = []

    def call(trainer, budget):
        def draw(path):
            assert trainer.average and path.parent == tmp_path
            events.append(path.name)

        run_stage("diffusion", trainer, budget, tmp_path, draw, lambda: events.append(budget.taken))
        return events

    call.events = events
    return call


def test_a_stage_takes_its_steps_and_draws_its_sheets(run):
    trainer, budget = FakeTrainer(), Budget(steps=20)
    events = run(trainer, budget)
    assert trainer.progresses == [i / 20 for i in range(20)]
    assert events == [f"diffusion-{20 * (i + 1) // SHEETS:06d}.png" for i in range(SHEETS)] + [20]
    assert trainer.adopted


def test_a_resumed_stage_goes_on_from_where_it_was(run, monkeypatch):
    monkeypatch.setattr(stage, "SHEETS", 2)
    trainer = FakeTrainer()
    assert run(trainer, Budget(steps=10, taken=6)) == ["diffusion-000010.png", 10]
    assert trainer.progresses == [0.6, 0.7, 0.8, 0.9]


def test_a_finished_stage_takes_no_step(run):
    trainer = FakeTrainer()
    assert run(trainer, Budget(steps=5, taken=5)) == [5]
    assert trainer.progresses == [] and trainer.adopted


def test_a_stage_saves_now_and_then(run, monkeypatch):
    monkeypatch.setattr(stage, "SHEETS", 1)
    budget = Budget(steps=6)
    monkeypatch.setattr(Budget, "elapsed", property(lambda self: 50.0 * self.taken))
    assert SAVE_EVERY == 120
    assert run(FakeTrainer(), budget) == [3, "diffusion-000006.png", 6, 6]


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_lets_the_step_end_saves_and_is_passed_on(run):
    before = signal.getsignal(signal.SIGINT)
    trainer = FakeTrainer({3: interrupt})
    with pytest.raises(KeyboardInterrupt):
        run(trainer, Budget(steps=4 * SHEETS))
    assert len(trainer.progresses) == 3 and run.events == [3]
    assert not trainer.adopted  # the model keeps what it was training
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_is_not_held_up(run):
    before = signal.getsignal(signal.SIGINT)

    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        run(FakeTrainer({2: twice}), Budget(steps=9))
    assert run.events == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fault_gives_the_interrupt_back(run):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        run(FakeTrainer({2: lambda: 1 / 0}), Budget(steps=9))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stage_runs_on_any_thread(run):
    trainer = FakeTrainer()
    thread = threading.Thread(target=run, args=(trainer, Budget(steps=3)))
    thread.start()
    thread.join()
    assert trainer.adopted and run.events[-1] == 3
