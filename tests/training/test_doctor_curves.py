"""What the curves of real trainings say: of those that went well nothing, at any point; of those made to fail, why.

tests/training/curves holds what `minild train`'s loop noted of one stage each, in four digits. The commands are those
of `minild train`, or of `train` with a preset changed as said; the ones that were made to fail are cut short.
"""

import json
import re
from pathlib import Path

import pytest

from minild.training.doctor_curves import Course, ailments
from minild.training.doctor_record import read_record
from minild.training.presets import preset_for
from minild.training.state import first_state

CURVES = Path(__file__).parent / "curves"
WELL = {  # name: data set, steps that were planned, what it was
    "shapes-two": ("shapes", 600, "minild train shapes --first-stage shapes --steps 600, of 4,096 pictures"),
    "emoji-two": ("emoji", 500, "minild train emoji --first-stage emoji --steps 500"),
    "shapes-one": ("shapes", 600, "minild train shapes --steps 600, of 2,048 pictures"),
    "emoji-one": ("emoji", 400, "minild train emoji --steps 400"),
    "emoji-f8-one": ("emoji", 1434, "the emoji at 64 x 64, f = 8, by Muon: python -m tests.benchmarks.tables losses"),
}
ILL = {  # name: data set, steps that were planned, how it was made to fail, what is found
    "rate-30-times-one": ("shapes", 200, "learning_rate=4.5e-2 in stage one", "learning rate too high"),
    "rate-100th-one": ("shapes", 200, "learning_rate=1.5e-5 in stage one", "learning rate too low"),
    "rate-30-times-two": ("shapes", 250, "learning_rate=4.5e-2 in stage two", "learning rate too high"),
    "rate-100th-two": ("shapes", 250, "learning_rate=1.5e-5 in stage two", "learning rate too low"),
    "two-pictures-two": ("two emoji", 400, "minild train FOLDER --first-stage emoji --steps 400", "loss collapsed"),
    "kl-weight-10-one": ("shapes", 150, "kl_weight=10", "latents collapsed"),
    "codes-by-gradient-one": ("emoji", 330, "regularisation='vq', codebook_moves=False", "codebook collapsed"),
}


def write(folder, lines, dataset="shapes", steps=600, **choices):
    """A training's folder, of lines of metrics.jsonl, with the choices of the data set's preset or others."""
    state = first_state(dataset, 32, 0, None, steps, preset_for(dataset).choices | choices)
    (folder / "training").mkdir(parents=True, exist_ok=True)
    (folder / "training" / "state.json").write_text(json.dumps(state))
    (folder / "training" / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return read_record(folder)


def noted(name):
    return (CURVES / f"{name}.jsonl").read_text().splitlines()


def course_of(folder, lines, *arguments, **choices):
    stage = json.loads(lines[0])["stage"]
    return Course(write(folder, lines, *arguments, **choices), stage)


@pytest.mark.parametrize("name", WELL)
def test_a_training_that_goes_well_is_never_called_ill(name, tmp_path):
    dataset, steps, _ = WELL[name]
    lines = noted(name)
    for count in range(1, len(lines) + 1):
        assert not ailments(course_of(tmp_path, lines[:count], dataset, steps)), lines[count - 1]


@pytest.mark.parametrize("name", ILL)
def test_one_that_was_made_to_fail_is_told_why_and_nothing_else(name, tmp_path):
    dataset, steps, how, found = ILL[name]
    choices = {"regularisation": "vq"} if "vq" in how else {}
    [finding] = ailments(course_of(tmp_path, noted(name), dataset, steps, **choices))
    assert finding.name == found and finding.seen.startswith("stage ")


def test_the_learning_rate_is_read_from_what_was_noted(tmp_path):
    lines = noted("rate-100th-one")
    course = course_of(tmp_path, lines, "shapes", 200)
    assert course.rate == pytest.approx(1.5e-5, rel=0.02)
    [finding] = ailments(course)
    assert "its learning rate is 1.5e-05, where 0.0015 is usual" in finding.seen
    assert "from third to third it fell by 40% and 9%" in finding.seen
    assert finding.advice == "begin anew with a learning rate of 0.0015 in stage one, in place of 1.5e-05"
    older = [json.dumps({k: v for k, v in json.loads(line).items() if k != "learning_rate"}) for line in lines]
    [finding] = ailments(course_of(tmp_path, older, "shapes", 200))
    assert finding.advice == "begin anew with a learning rate of 0.0045 in stage one, in place of 0.0015"


def test_of_two_slow_curves_the_rate_says_which_is_too_high(tmp_path):
    """A rate far above the usual one leaves a network as dead as a tiny one does, now and then."""
    rows = [json.loads(line) for line in noted("rate-100th-one")]
    lines = [json.dumps(row | {"learning_rate": 1e4 * row["learning_rate"]}) for row in rows]
    [finding] = ailments(course_of(tmp_path, lines, "shapes", 200))
    assert finding.name == "learning rate too high" and "learning rate of 0.0015" in finding.advice


def times(lines, numbers, factor):
    """The lines, the losses of some of which are so many times what they were."""
    rows = [json.loads(line) for line in lines]
    for i in numbers:
        rows[i]["loss"] *= factor
    return [json.dumps(row) for row in rows]


def test_a_loss_that_jumps_often_tells_of_a_learning_rate_too_high_and_once_of_none(tmp_path):
    lines = noted("shapes-two")
    assert not ailments(course_of(tmp_path, times(lines, [30], 4)))
    [finding] = ailments(course_of(tmp_path, times(lines, [28, 36, 45], 4)))
    assert finding.name == "learning rate too high"
    told = r"the loss jumped to 0\.\d+ at step \d+, 3 times in all; the gradient's norm was 0\."
    assert re.search(told, finding.seen)


def test_the_step_up_after_three_tenths_is_no_jump(tmp_path):
    lines = noted("shapes-two")
    assert not ailments(course_of(tmp_path, times(lines, range(18, 21), 3)))  # progress 0.32 to 0.35
    assert ailments(course_of(tmp_path, times(lines, range(30, 33), 4)))


def test_a_training_that_diverged_says_so_whatever_its_curve(tmp_path):
    words = "stage diffusion, step 304: the gradient's norm is nan, so the training stops"
    lines = [*noted("shapes-two")[:30], json.dumps({"stage": "diffusion", "step": 304, "diverged": words})]
    [finding] = ailments(course_of(tmp_path, lines))
    assert (finding.name, finding.seen) == ("learning rate too high", words)
    assert finding.advice.startswith("add --resume to go on from what was saved last; if it stops there again, begin")


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ({"discriminator": 0.0, "real": 2.0, "generated": -3.0}, "its loss is 0, it always tells"),
        ({"discriminator": 1.0, "real": 0.103, "generated": 0.1}, "the same logit, 0.103"),
    ],
)
def test_a_discriminator_that_has_collapsed_is_told_as_long_as_it_is(means, words, tmp_path):
    lines = [json.dumps(json.loads(line) | means) for line in noted("emoji-f8-one")]
    [finding] = ailments(course_of(tmp_path, lines, "emoji", 1434))
    assert finding.name == "discriminator collapsed" and words in finding.seen and "adversarial_start" in finding.advice
    healthy = {"discriminator": 0.8, "real": 0.4, "generated": -0.2}
    after = json.dumps(json.loads(lines[-1]) | healthy | {"step": 1440})
    assert not ailments(course_of(tmp_path, [*lines, after], "emoji", 1434))


def test_objectives_that_no_table_knows_are_only_told_where_they_hardly_move(tmp_path):
    lines = times(noted("shapes-two"), range(60), 5)
    assert not ailments(course_of(tmp_path, lines, objective="sample"))  # 0.35 in the end
    still = [json.dumps(json.loads(line) | {"loss": 0.95}) for line in lines]
    [finding] = ailments(course_of(tmp_path, still, objective="sample"))
    assert finding.name == "learning rate too low" and "the loss is 0.95, as at its beginning" in finding.seen
    assert not ailments(course_of(tmp_path, still, objective="flow"))  # which begins at 2
