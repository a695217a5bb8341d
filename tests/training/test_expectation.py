"""What a training says of its length after its first steps."""

import dataclasses

import pytest

from minild.training import PRESETS
from minild.training import expectation as expectation_module
from minild.training.budget import Budget
from minild.training.expectation import TIMED, WARM, Foretelling, duration, expectation
from minild.training.presets import SHAPES
from minild.training.state import first_state

STAGES = {"autoencoder": 200, "diffusion": 100}
PRESET = dataclasses.replace(
    SHAPES,
    autoencoder_share=0.25,  # a step of stage two takes six times as long as one of stage one
    **{stage: dataclasses.replace(getattr(SHAPES, stage), steps=steps) for stage, steps in STAGES.items()},
)


def state(minutes=None, steps=None, **changes):
    return first_state("shapes", 32, 0, minutes, steps, {}) | changes


@pytest.mark.parametrize(("given", "seconds", "told"), [
    ({}, 1.0, "a step takes 1 s on this machine, the whole training about 13 minutes"),  # 200 s + 600 s
    ({"minutes": 20}, 1.0, "a step takes 1 s on this machine, the whole training about 13 minutes"),
    ({"minutes": 4}, 1.0, "about 13 minutes: --minutes 4 leaves time for about 30% of its steps"),
    ({"steps": 10}, 1.0, "the whole training about 70 seconds"),  # 10 s + 60 s
    ({"stage": "diffusion"}, 6.0, "the whole training about 10 minutes"),  # --first-stage
    ({"stage": "diffusion", "taken": {"autoencoder": 200, "diffusion": 50}}, 6.0, "training about 5 minutes"),
    ({"taken": {"autoencoder": 100, "diffusion": 0}}, 1.0, "what is left of the training about 12 minutes"),
    ({"minutes": 4, "elapsed": {"autoencoder": 240.0, "diffusion": 5.0}}, 1.0, "leaves time for about 0% of its steps"),
])  # fmt: skip
def test_both_stages_are_foretold_from_a_step_of_one(given, seconds, told):
    assert expectation(seconds, PRESET, state(**given)).endswith(told)


def test_what_such_trainings_came_to_is_said_of_the_preset_itself_alone(monkeypatch):
    monkeypatch.setitem(expectation_module.FOLLOWED, "shapes", {40: 0.5, 100: 0.975})
    monkeypatch.setitem(PRESETS, "shapes", PRESET)

    def told(preset=PRESET, **given):
        return expectation(1.0, preset, state(**given)).rpartition("; ")[2]

    assert told() == "with 100 steps of stage two, 98% of captions were followed"
    assert told(minutes=10) == "with 40 steps of stage two, 50% of captions were followed"
    assert told(steps=60) == "with 40 steps of stage two, 50% of captions were followed"
    resumed = told(minutes=0.1, stage="diffusion", taken={"autoencoder": 200, "diffusion": 90})
    assert resumed == "with 40 steps of stage two, 50% of captions were followed"
    others = dataclasses.replace(PRESET, objective="flow"), dataclasses.replace(PRESET, kl_weight=1.0)
    for text in (told(minutes=2), told(size=64), *map(told, others)):
        assert "followed" not in text and text.startswith("a step takes")


def test_what_is_said_of_presets_is_of_steps_that_they_take():
    for dataset, tried in expectation_module.FOLLOWED.items():
        assert all(0 < steps <= PRESETS[dataset].diffusion.steps and 0 < share <= 1 for steps, share in tried.items())


def test_nothing_is_foretold_of_a_preset_that_does_not_count_or_gives_a_stage_no_time():
    preset = dataclasses.replace(PRESET, diffusion=dataclasses.replace(PRESET.diffusion, steps=None))
    assert expectation(1.0, preset, state(minutes=3)) is None
    for stage, share in (("autoencoder", 0.0), ("diffusion", 1.0)):
        preset = dataclasses.replace(PRESET, autoencoder_share=share)
        assert expectation(1.0, preset, state(stage=stage)) is None


@pytest.mark.parametrize("count", [WARM + TIMED - 1, WARM + TIMED, 60])
def test_it_is_said_once_after_the_steps_that_are_timed(count, monkeypatch, capsys):
    monkeypatch.setattr(Budget, "elapsed", property(lambda self: 100.0 if self.taken < WARM else 50.0 + self.taken / 2))
    foretelling = Foretelling(PRESET, state())

    def steps_of(count):
        budget = Budget(steps=100)

        def steps():
            for _ in range(count):
                budget.taken += 1
                yield budget.taken, {"loss": 1.0}

        return [step for step, _ in foretelling.over(steps(), budget)]

    said = "minild: a step takes 0.5 s on this machine, the whole training about 7 minutes\n"
    assert steps_of(count) == list(range(1, count + 1))
    assert capsys.readouterr().err == said * (count >= WARM + TIMED)
    steps_of(60)
    assert capsys.readouterr().err == said * (count < WARM + TIMED)  # by the next stage, if the first was too short


def test_durations_in_words():
    assert [duration(seconds) for seconds in (40, 89.6, 420, 9000)] == ["40 seconds", "90 seconds", "7 minutes",
                                                                        "2.5 hours"]  # fmt: skip
