"""What is read of a training's folder: whole, torn, still growing, gone on with, or none at all."""

import dataclasses
import json
import os
import time

import numpy as np
import pytest
import tiny_pipeline

from minild import checkpoints
from minild.errors import UserError
from minild.training.doctor_record import QUIET, how_far, read_training
from minild.training.presets import PRESETS
from minild.training.state import first_state

STAGE = {"learning_rate": 1e-3, "batch_size": 8}


def write(folder, lines, taken=(0, 0), stage="autoencoder", **changes):
    """A training's folder: state.json, and metrics.jsonl of entries or of texts as they are."""
    choices = {"regularisation": "kl", "objective": "epsilon", "condition": "text"}
    state = first_state("shapes", 32, 0, None, 200, choices) | {"stage": stage}
    state |= {"taken": dict(zip(("autoencoder", "diffusion"), taken))} | changes
    (folder / "training").mkdir(parents=True, exist_ok=True)
    (folder / "training" / "state.json").write_text(json.dumps(state))
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / "training" / "metrics.jsonl").write_text(text)
    return folder


def entry(step, loss=0.5, stage="autoencoder", **more):
    return {"stage": stage, "step": step, "seconds": step / 10, "loss": loss, **more}


def test_a_torn_line_and_lines_of_other_things_are_passed_over(tmp_path):
    lines = [
        entry(10), "\n", "[1, 2]\n", "nonsense\n", entry(20, 0.25),
        {"stage": "autoencoder", "step": 20, "warning": "?"}, {"stage": "elsewhere", "step": 3, "loss": 1.0},
        '{"stage": "autoencoder", "step": 20, "loss": "high"}\n', '{"stage": "autoencoder", "step": 30, "lo',
    ]  # fmt: skip
    record = read_training(write(tmp_path, lines))
    curve = record.curves["autoencoder"]
    assert curve.column("step").tolist() == [10, 20] and curve.column("loss").tolist() == [0.5, 0.25]
    assert curve.column("progress").tolist() == [0.05, 0.1]  # older entries do not say it
    assert record.diverged is None and not record.curves["diffusion"].rows


def test_bytes_that_are_no_text_are_passed_over(tmp_path):
    write(tmp_path, [entry(10)])
    with open(tmp_path / "training" / "metrics.jsonl", "ab") as file:
        file.write(b"\x00\xff\xfe{")
    assert read_training(tmp_path).step == 10


def test_of_steps_that_a_resume_took_again_the_last_count(tmp_path):
    lines = [entry(10), entry(20), entry(30, 9.0), entry(40, 9.0), entry(30, 0.1), entry(40, 0.2)]
    record = read_training(write(tmp_path, lines))
    assert record.curves["autoencoder"].column("loss").tolist() == [0.5, 0.5, 0.1, 0.2]


def test_progress_is_as_noted_or_by_the_clock(tmp_path):
    by_clock = {"steps": None, "minutes": 2.0, "elapsed": {"autoencoder": 60.0, "diffusion": 0.0}}
    lines = [entry(150), entry(180, stage="diffusion"), entry(300, stage="diffusion", progress=0.4)]
    record = read_training(write(tmp_path, lines, stage="diffusion", **by_clock))
    assert record.curves["autoencoder"].column("progress").tolist() == [0.5]  # 15 s of a quarter of 2 minutes
    assert record.curves["diffusion"].column("progress").tolist() == [0.3, 0.4]  # 18 s of one minute
    assert (record.stage, record.step, record.progress, record.planned) == ("diffusion", 300, 0.4, 750)


def test_how_far_it_is(tmp_path):
    def told(*arguments, idle=0.0, **settings):
        folder = write(tmp_path, *arguments, **settings)
        for name in ("metrics.jsonl", "state.json"):
            os.utime(folder / "training" / name, (time.time() - idle,) * 2)
        return how_far(read_training(folder))

    one, two = "stage one, the autoencoder, ", "stage two, the U-Net, "
    now = "; last written to less than two minutes ago"
    assert told([entry(50)]) == f"{one}step 50 of 200 (25 %){now}"
    assert told([entry(50)], idle=2 * QUIET) == f"{one}step 50 of 200 (25 %); last written to 10 minutes ago"
    assert told([]) == f"{one}step 0 of 200 (0 %){now}"
    (tmp_path / "training" / "metrics.jsonl").unlink()  # the pictures are being encoded
    assert how_far(read_training(tmp_path)) == f"{one}step 0 of 200 (0 %){now}"
    assert told([entry(50)], idle=4 * 3600).endswith("; last written to 4 hours ago")
    diffusion = entry(100, stage="diffusion")
    assert told([entry(200), diffusion], (200, 0), "diffusion") == f"{two}step 100 of 200 (50 %){now}"
    assert told([entry(200), diffusion], (200, 200), "diffusion") == "it has ended, after 200 steps of stage two"
    further = [entry(200), entry(210, stage="diffusion", progress=0.7)]  # --resume --steps 300, and not saved yet
    assert told(further, (200, 200), "diffusion").endswith(f"(70 %){now}")
    clock = {"steps": None, "minutes": 9.0}
    assert told([entry(100)], **clock) == f"{one}step 100 of about 1,350 (7 %){now}"  # 10 s of 135
    diverged = {"stage": "autoencoder", "step": 57, "diverged": "stage autoencoder, step 57: the loss is nan"}
    assert told([entry(50), diverged]) == f"{one}step 50 of 200 (25 %); it diverged"
    assert told([entry(50), diverged, entry(60)]) == f"{one}step 60 of 200 (30 %){now}"  # gone on with


@pytest.mark.parametrize("noted", ["", '{"stage": "finetune", "step": 10, "loss": 0.3}\n'])
def test_a_pipeline_that_has_learnt_since_is_looked_at(tmp_path, noted):
    """What was noted of that is no curve of a stage."""
    tiny_pipeline.make(record=tiny_pipeline.RECORD | {"learnt": ["shapes by fine-tuning"]}).save_pretrained(tmp_path)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "metrics.jsonl").write_text(noted)
    record = read_training(tmp_path)
    assert how_far(record) == "it has ended, after 3,400 steps of stage two; it has learnt since: shapes by fine-tuning"
    assert all(not len(curve.column("step")) for curve in record.curves.values())


def save(folder, **changes):
    """A save as trainings write them today."""
    state = json.loads((folder / "training" / "state.json").read_text()) | changes
    (folder / "training" / "state.json").unlink()
    checkpoints.write(folder, state, {"weights": np.zeros(3, "f")})


def test_the_newest_save_that_is_whole_is_read_and_stays(tmp_path):
    folder = write(tmp_path, [entry(10)])
    save(folder, taken={"autoencoder": 10, "diffusion": 0})
    checkpoints.write(folder, checkpoints.newest(folder).state | {"taken": {"autoencoder": 20, "diffusion": 0}}, {})
    assert read_training(folder).step == 20
    (folder / "training" / "checkpoint-autoencoder-000020" / "state.json").write_text("{")
    record = read_training(folder)
    assert record.step == 10 and record.saved.folder.name == "checkpoint-autoencoder-000010"


def test_a_save_that_vanishes_while_it_is_read_gives_way_to_the_next(tmp_path, monkeypatch):
    folder = write(tmp_path, [entry(10)])
    save(folder)
    newest, calls = checkpoints.newest, []

    def first_gone(output):
        calls.append(output)
        if len(calls) == 1:
            raise UserError("cannot read it")
        return newest(output)

    monkeypatch.setattr(checkpoints, "newest", first_gone)
    assert read_training(folder).saved is not None and len(calls) == 2


def test_the_preset_is_the_one_that_was_told(tmp_path):
    stage = dataclasses.replace(PRESETS["shapes"].diffusion, optimizer="muon", learning_rate=0.5)
    mine = dataclasses.replace(PRESETS["shapes"], diffusion=stage, unet_channels=(8, 8))
    told = dataclasses.asdict(mine) | {"from_a_later_version": 3}
    record = read_training(write(tmp_path, [entry(10)], preset=told))
    assert record.preset == mine
    assert record.resume(500) == f"minild train shapes --output {tmp_path} --resume --steps 500"  # with that preset
    older = dataclasses.replace(PRESETS["shapes"], posterior="sample")
    assert read_training(write(tmp_path, [entry(10)])).preset == older


def test_the_newest_sheet_is_named(tmp_path):
    folder = write(tmp_path, [entry(10)])
    assert read_training(folder).sheet is None
    for name in ("autoencoder-009000.png", "diffusion-000100.png", "diffusion-000050.png"):
        (folder / "training" / name).touch()
    assert read_training(folder).sheet == "training/diffusion-000100.png"


def test_what_is_broken_is_refused_in_one_line(tmp_path):
    def refusal():
        with pytest.raises(UserError) as caught:
            read_training(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = write(tmp_path, []) / "training" / "state.json"
    for text, words in (('{"dataset": "sha', "is not JSON"), ("[]", "does not hold a JSON object")):
        path.write_text(text)
        assert words in refusal()
    for changes, words in (
        ({"elapsed": {"autoencoder": 3}}, "'elapsed' cannot be {'autoencoder': 3}"),
        ({"size": None}, "'size' cannot be None"),
        ({"choices": {"objective": "magic"}}, "unknown objective 'magic'"),
        ({"preset": {"diffusion": {"rate": 3}}}, "cannot be used: TypeError"),
        *(
            ({"preset": {"diffusion": STAGE | {"steps": steps}}}, "cannot be used: ValueError: ")
            for steps in (-1, 0, "many", float("inf"), 2.5, [1], True)
        ),
        ({"preset": {"channels": "abc"}}, "cannot be used: ValueError: 'channels' cannot be ('a', 'b', 'c')"),
        ({"preset": {"heads": None}}, "cannot be used: ValueError: 'heads' cannot be None"),
        ({"preset": [3]}, "cannot be used: AttributeError"),
    ):
        write(tmp_path, [], **changes)
        assert words in refusal()


def test_the_state_of_an_older_training_has_no_choices(tmp_path):
    folder = write(tmp_path, [entry(10)])
    path = folder / "training" / "state.json"
    state = json.loads(path.read_text())
    del state["choices"]
    path.write_text(json.dumps(state))
    assert read_training(folder).preset.objective == "epsilon"
