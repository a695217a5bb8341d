"""What the curves of real trainings say: of those that went well nothing, at any point; of those made to fail, why.

tests/training/curves holds what `minild train`'s loop noted of one stage each, in four digits. The commands are those
of `minild train`, or of `train` with a preset changed as said; the ones that were made to fail are cut short.
"""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from minild.checkpoints import STAGES
from minild.training import doctor
from minild.training.doctor_curves import Course, ailments
from minild.training.doctor_known import KNOWN, why_unknown
from minild.training.doctor_record import read_training
from minild.training.presets import preset_for
from minild.training.state import first_state

CURVES = Path(__file__).parent / "curves"
ONE, TWO = STAGES
ADAMW = {"learning_rate": 1.5e-3, "optimizer": "adamw"}
MUON = {stage: {"optimizer": "muon", "learning_rate": rate} for stage, rate in ((ONE, 1.5e-3), (TWO, 2e-3))}
F8 = {"size": 64, "channels": (32, 64, 64, 64), ONE: {"optimizer": "muon"}}
WELL = {  # name: data set, steps that were planned, what was changed of its preset, what it was
    "shapes-two": ("shapes", 600, {}, "first_stage='shapes', of 4,096 pictures"),
    "emoji-two": ("emoji", 500, {}, "minild train emoji --first-stage emoji --steps 500"),
    "shapes-one": ("shapes", 600, {}, "of 2,048 pictures"),
    "emoji-one": ("emoji", 400, {}, "minild train emoji --steps 400"),
    "emoji-f8-one": ("emoji", 1434, F8, "python -m tests.benchmarks.tables losses"),
    "muon-preset-one": ("shapes", 5300, MUON, "minild train shapes; after 400 steps, every fiftieth step alone"),
    "muon-preset-two": ("shapes", 5000, MUON, "minild train shapes; after 400 steps, every fiftieth step alone"),
    "muon-one": ("shapes", 300, {ONE: {"optimizer": "muon"}}, "of 2,048 pictures"),
    "muon-two": ("shapes", 250, {TWO: {"optimizer": "muon"}}, "first_stage='shapes', of 2,048 pictures"),
}
ILL = {  # name: data set, steps that were planned, how it was made to fail, what is found
    "rate-30-times-one": ("shapes", 200, {ONE: {"learning_rate": 4.5e-2}}, "learning rate too high"),
    "rate-100th-one": ("shapes", 200, {ONE: {"learning_rate": 1.5e-5}}, "learning rate too low"),
    "rate-30-times-two": ("shapes", 250, {TWO: {"learning_rate": 4.5e-2}}, "learning rate too high"),
    "rate-100th-two": ("shapes", 250, {TWO: {"learning_rate": 1.5e-5}}, "learning rate too low"),
    "two-pictures-two": ("two emoji", 400, {}, "loss collapsed"),  # a folder, --first-stage emoji
    "kl-weight-10-one": ("shapes", 150, {"kl_weight": 10.0}, "latents collapsed"),
    "codes-by-gradient-one": ("emoji", 330, {"regularisation": "vq", "codebook_moves": False}, "codebook collapsed"),
}


def write(folder, lines, dataset="shapes", steps=600, changes=None):
    """A training's folder, of lines of metrics.jsonl, as an older version saved it: without checksums. Changes of the
    preset are dicts of fields for a stage; most curves of the shapes are of AdamW, at the same rate in both stages.
    """
    preset = preset_for(dataset)
    if dataset == "shapes":
        changes = {stage: ADAMW | (changes or {}).get(stage, {}) for stage in STAGES} | {
            name: value for name, value in (changes or {}).items() if name not in STAGES
        }
    for name, value in (changes or {}).items():
        value = dataclasses.replace(getattr(preset, name), **value) if name in STAGES else value
        preset = dataclasses.replace(preset, **{name: value})
    state = first_state(dataset, preset.size, 0, None, steps, preset.choices)
    state["preset"] = dataclasses.asdict(preset)
    (folder / "training").mkdir(parents=True, exist_ok=True)
    (folder / "training" / "state.json").write_text(json.dumps(state))
    (folder / "training" / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return read_training(folder)


def noted(name):
    return (CURVES / f"{name}.jsonl").read_text().splitlines()


def course_of(folder, lines, *arguments):
    return Course(write(folder, lines, *arguments), json.loads(lines[0])["stage"])


@pytest.mark.parametrize("name", WELL)
def test_a_training_that_goes_well_is_never_called_ill(name, tmp_path):
    dataset, steps, changes, _ = WELL[name]
    lines = noted(name)
    for count in range(1, len(lines) + 1):
        assert not ailments(course_of(tmp_path, lines[:count], dataset, steps, changes)), lines[count - 1]


@pytest.mark.parametrize("name", ILL)
def test_one_that_was_made_to_fail_is_told_why_and_nothing_else(name, tmp_path):
    dataset, steps, changes, found = ILL[name]
    [finding] = ailments(course_of(tmp_path, noted(name), dataset, steps, changes))
    assert finding.name == found and finding.seen.startswith("stage ")


@pytest.mark.parametrize(("name", "place"), [("shapes-one", (ONE, "shapes", "adamw")),
                                             ("emoji-one", (ONE, "emoji", "adamw")),
                                             ("muon-preset-one", (ONE, "shapes", "muon")),
                                             ("emoji-f8-one", (ONE, "scenes", "muon")),
                                             ("shapes-two", (TWO, "shapes", "adamw")),
                                             ("emoji-two", (TWO, "emoji", "adamw")),
                                             ("muon-preset-two", (TWO, "shapes", "muon"))])  # fmt: skip
def test_the_tables_are_those_of_the_curves(name, place, tmp_path):
    course = course_of(tmp_path, noted(name))
    for step, progress, loss in zip(course.steps, course.progress, course.loss):
        assert 0.6 < KNOWN[place].at(step, progress) / loss < 1.6, step


def test_a_slow_curve_is_told_with_both_rates(tmp_path):
    [finding] = ailments(course_of(tmp_path, noted("rate-100th-one"), "shapes", 200, ILL["rate-100th-one"][2]))
    assert "its learning rate is 1.5e-05, where 0.0015 is usual" in finding.seen
    assert "from third to third it fell by 40% and 9%" in finding.seen
    assert finding.advice == "begin anew with a learning rate of 0.0015 in stage one, in place of 1.5e-05"
    [finding] = ailments(course_of(tmp_path, noted("rate-100th-one"), "shapes", 200))  # as an older one, untold
    assert finding.advice == "begin anew with a learning rate of 0.0045 in stage one, in place of 0.0015"


def test_of_two_slow_curves_the_rate_says_which_is_too_high(tmp_path):
    """A rate far above the usual one leaves a network as dead as a tiny one does, now and then."""
    lines = noted("rate-100th-one")
    [finding] = ailments(course_of(tmp_path, lines, "shapes", 200, {ONE: {"learning_rate": 0.15}}))
    assert finding.name == "learning rate too high" and "learning rate of 0.0015" in finding.advice


@pytest.mark.parametrize(
    ("dataset", "changes", "words"),
    [
        ("emoji", {TWO: {"optimizer": "muon"}}, "of emoji are of another preset: the optimizer is muon, not adamw"),
        ("shapes", {TWO: {"optimizer": "muon"}}, None),
        ("scenes", {}, "no curve of scenes is known"),
        ("shapes", {"unet_channels": (8, 16)}, "unet_channels is [8, 16], not [64, 128]"),
        ("mine", {"objective": "flow"}, "pictures of your own are of another preset: objective is flow, not epsilon"),
        ("shapes", {"autoencoder_share": 0.5, "guidance_scale": 2.0, TWO: {"learning_rate": 1e-5}}, None),
    ],
)
def test_where_no_curve_is_known_none_is_held_beside_it(dataset, changes, words, tmp_path):
    lines = times(noted("shapes-two"), range(60), 3.5)  # 0.25 in the end
    record = write(tmp_path, lines, dataset, 600, changes)
    finding = {finding.name: finding for finding in doctor.diagnose(record)}.get("no curve to compare with")
    if words is None:
        assert finding is None and why_unknown(record, TWO) is None and ailments(Course(record, TWO))
    else:
        assert words in why_unknown(record, TWO) and not ailments(Course(record, TWO))
        assert finding.seen.startswith("stage two: ") and words in finding.seen and "0.24" in finding.seen


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


def test_while_it_is_too_early_what_is_normal_is_told_and_the_learning_rate_that_is_not(tmp_path):
    lines = noted("rate-30-times-two")[:6]
    [finding] = doctor.diagnose(write(tmp_path, lines, "shapes", 250, ILL["rate-30-times-two"][2]))
    assert finding.name == "too early to tell" and "step 60 of 250 of stage two" in finding.seen
    assert "it is normal that the sample sheets show noise, grey or blots" in finding.seen
    assert finding.seen.endswith("its learning rate is 0.045, where 0.0015 is usual")
    later = json.dumps({"stage": TWO, "step": 500, "progress": 0.2, "loss": 0.05})
    [finding] = doctor.diagnose(write(tmp_path, [later], "shapes", 2500))
    assert "show coloured blobs" in finding.seen and "learning rate" not in finding.seen


def test_the_step_up_after_three_tenths_is_no_jump(tmp_path):
    lines = noted("shapes-two")
    assert not ailments(course_of(tmp_path, times(lines, range(18, 21), 3)))  # progress 0.32 to 0.35
    assert ailments(course_of(tmp_path, times(lines, range(30, 33), 4)))


def test_a_training_that_diverged_says_so_whatever_its_curve(tmp_path):
    words = "stage diffusion, step 304: the gradient's norm is nan, so the training stops"
    lines = [*noted("shapes-two")[:30], json.dumps({"stage": "diffusion", "step": 304, "diverged": words})]
    course = course_of(tmp_path, lines)
    [finding] = ailments(course)
    assert (finding.name, finding.seen) == ("learning rate too high", words)
    again = f"go on from what was saved last ({course.record.resume()}); if it stops there "
    assert finding.advice.startswith(f"{again}again, begin anew with a learning rate of 0.0005")


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ({"discriminator": 0.0, "real": 2.0, "generated": -3.0}, "its loss is 0, it always tells"),
        ({"discriminator": 1.0, "real": 0.103, "generated": 0.1}, "the same logit, 0.103"),
    ],
)
def test_a_discriminator_that_has_collapsed_is_told_as_long_as_it_is(means, words, tmp_path):
    lines = [json.dumps(json.loads(line) | means) for line in noted("emoji-f8-one")]
    [finding] = ailments(course_of(tmp_path, lines, "emoji", 1434, F8))
    assert finding.name == "discriminator collapsed" and words in finding.seen and "adversarial_start" in finding.advice
    healthy = {"discriminator": 0.8, "real": 0.4, "generated": -0.2}
    after = json.dumps(json.loads(lines[-1]) | healthy | {"step": 1440})
    assert not ailments(course_of(tmp_path, [*lines, after], "emoji", 1434, F8))


def test_objectives_that_no_table_knows_are_only_told_where_they_hardly_move(tmp_path):
    lines = times(noted("shapes-two"), range(60), 5)
    assert not ailments(course_of(tmp_path, lines, "shapes", 600, {"objective": "sample"}))  # 0.35 in the end
    still = [json.dumps(json.loads(line) | {"loss": 0.95}) for line in lines]
    [finding] = ailments(course_of(tmp_path, still, "shapes", 600, {"objective": "sample"}))
    assert finding.name == "nothing is learned" and "the loss is 0.95, as at its beginning" in finding.seen
    assert "learning rate of 0.00015 in stage two, in place of 0.0015, and with one of 0.015" in finding.advice
    assert not ailments(course_of(tmp_path, still, "shapes", 600, {"objective": "flow"}))  # which begins at 2
