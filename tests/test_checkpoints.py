"""The saves of a training: whole or not there, checked when they are read, the newest first, the old ones removed."""

import json
import os
from functools import partial

import numpy as np
import pytest
from killed import killed_before
from safetensors.numpy import save_file

from minild import checkpoints
from minild.checkpoints import any_in, newest, write
from minild.errors import UserError


def state_at(step, stage="autoencoder", **fields):
    taken = {"autoencoder": step, "diffusion": 0} if stage == "autoencoder" else {"autoencoder": 9, "diffusion": step}
    return {"stage": stage, "taken": taken, "generator": {"state": 2**100 + step}, "elapsed": 0.1 * step, **fields}


def arrays_at(step):
    return {"weights": np.arange(5, dtype="f") * step, "steps": np.array(step)}


def save(output, step, stage="autoencoder", keep=2, **fields):
    write(output, state_at(step, stage, **fields), arrays_at(step), keep)


def names(output):
    return sorted(path.name for path in (output / "training").iterdir())


def place(output, step, stage="autoencoder"):
    return output / "training" / f"checkpoint-{stage}-{step:06d}"


@pytest.fixture
def output(tmp_path):
    (tmp_path / "training").mkdir()
    return tmp_path


def test_what_is_saved_is_what_is_read(output):
    assert newest(output) is None and not any_in(output) and newest(output / "nowhere") is None
    save(output, 3)
    checkpoint = newest(output)
    assert any_in(output) and names(output) == ["checkpoint-autoencoder-000003"]
    assert checkpoint.folder == place(output, 3) and checkpoint.passed_over == []
    assert checkpoint.state == state_at(3)
    for name, array in arrays_at(3).items():
        np.testing.assert_array_equal(checkpoint.read_arrays()[name], array)


def test_the_newest_is_of_the_last_stage_and_the_most_steps(output):
    for step, stage in ((999_999, "autoencoder"), (1_000_000, "autoencoder"), (0, "diffusion"), (2, "diffusion")):
        save(output, step, stage, keep=9)
        assert newest(output).state == state_at(step, stage)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_old_ones_go_once_the_new_one_is_in_place(output, keep, monkeypatch):
    removed, rmtree = [], checkpoints.rmtree

    def remove(folder, **how):
        if folder.exists():
            removed.append(folder.name)
            assert newest(output).state == state_at(len(removed) + keep)
        rmtree(folder, **how)

    monkeypatch.setattr(checkpoints, "rmtree", remove)
    for step in range(1, 6):
        save(output, step, keep=keep)
    assert names(output) == [place(output, step).name for step in range(6 - keep, 6)]
    assert removed == [place(output, step).name for step in range(1, 6 - keep)]


def spoil(path, how):
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zeros":  # what a power cut leaves where the size was written and the content was not
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 4]) + content[-2:])  # one bit


@pytest.mark.parametrize("how", ["gone", "torn", "empty", "zeros", "bit"])
@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_of_a_damaged_one_the_one_before_it_is_taken(output, file, how):
    save(output, 3)
    save(output, 6)
    spoil(place(output, 6) / file, how)
    checkpoint = newest(output)
    assert checkpoint.state == state_at(3) and checkpoint.folder == place(output, 3)
    [line] = checkpoint.passed_over
    assert f"checkpoint-autoencoder-000006{os.sep}{file}" in line and "\n" not in line
    spoil(place(output, 3) / "state.safetensors", "torn")
    with pytest.raises(UserError, match=rf"000006.{file}.*: begin anew in another folder"):
        newest(output)


def test_every_word_of_the_state_is_checked(output):
    save(output, 3)
    save(output, 6)
    path = place(output, 6) / "state.json"
    path.write_text(path.read_text().replace('"elapsed": 0.6', '"elapsed": 0.7'))
    assert newest(output).state == state_at(3)
    path.write_text("[]")
    assert newest(output).state == state_at(3)


def test_a_training_that_passes_damaged_ones_replaces_and_removes_them(output):
    for step in (3, 6, 9):
        save(output, step, keep=3)
    spoil(place(output, 6) / "state.safetensors", "torn")
    spoil(place(output, 9) / "state.safetensors", "bit")
    assert newest(output).state == state_at(3)
    save(output, 6)
    assert newest(output).state == state_at(6) and newest(output).passed_over == []
    assert names(output) == [place(output, step).name for step in (3, 6)]


def test_at_the_same_step_the_state_alone_is_written_anew(output):
    save(output, 3)
    save(output, 6)
    before = (place(output, 6) / "state.safetensors").stat().st_ino
    save(output, 6, minutes=2)
    assert newest(output).state == state_at(6, minutes=2)
    assert (place(output, 6) / "state.safetensors").stat().st_ino == before
    assert names(output) == [place(output, step).name for step in (3, 6)]


def write_old(output, step):
    (output / "training" / "state.json").write_text(json.dumps(state_at(step)))
    save_file(arrays_at(step), output / "training" / "state.safetensors")


def test_an_older_training_is_read_and_its_files_go_in_their_turn(output):
    """Those begun before there were folders have state.json and state.safetensors in the training's own."""
    write_old(output, 4)
    checkpoint = newest(output)
    assert any_in(output) and checkpoint.state == state_at(4)
    np.testing.assert_array_equal(checkpoint.read_arrays()["weights"], arrays_at(4)["weights"])
    save(output, 6)
    assert newest(output).state == state_at(6)
    assert names(output) == [place(output, 6).name, "state.json", "state.safetensors"]
    write_old(output, 8)  # by an older version, in between
    assert newest(output).state == state_at(8)
    save(output, 8)
    assert newest(output).folder == place(output, 8)
    save(output, 9)
    assert names(output) == [place(output, 8).name, place(output, 9).name]


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "sleep"}', '{"stage": "diffusion", "taken": 3}'])
def test_a_broken_state_of_an_older_training_comes_last(output, text):
    (output / "training" / "state.json").write_text(text)
    save(output, 0)
    assert newest(output).state == state_at(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("keep", [1, 2])
def test_a_kill_at_any_moment_leaves_the_save_before_or_the_new_one(output, keep):
    call, seen, step = 0, [], 1
    save(output, step)
    while killed_before(call, partial(save, output, step + 1, keep=keep)):
        checkpoint = newest(output)
        assert checkpoint.passed_over == [] and checkpoint.state in (state_at(step), state_at(step + 1))
        seen.append(checkpoint.state == state_at(step))
        save(output, step + 2, keep=keep)
        assert newest(output).state == state_at(step + 2)
        assert "next-checkpoint" not in names(output) and len(names(output)) == keep
        step, call = step + 2, call + 1
    assert seen[0] and not seen[-1] and seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("function", ["write_weights", "write_json", "flush", "move"])
def test_a_full_disk_leaves_what_was_saved(output, function, monkeypatch):
    save(output, 3)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        module = checkpoints if function in ("flush", "move") else checkpoints.pretrained
        patch.setattr(module, function, fail)
        save(output, 6)
    assert newest(output).state == state_at(3) and names(output) == [place(output, 3).name]
