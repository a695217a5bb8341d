"""Files and folders that are whole, whatever happens while they are written."""

import os
from functools import partial

import pytest
from killed import killed_before

from minild.durable import files_together, finish_move, whole_file

OLD = {"a": "old", "part/b": "old", "index": "old", "part/kept": "kept"}
NEW = {"a": "new", "part/b": "new", "other/c": "new", "index": "new"}
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_together(folder):
    with files_together(folder, last="index") as aside:
        write(aside, NEW)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, OLD)
    return tmp_path


def test_files_come_together_and_others_stay(folder):
    write_together(folder)
    assert contents(folder) == OLD | NEW
    assert {path.name for path in folder.rglob("*") if path.is_dir()} == {"part", "other"}


def test_the_last_file_comes_last(folder, monkeypatch):
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda path, place: (moved.append(place), replace(path, place)))
    write_together(folder)
    assert [str(place.relative_to(folder)) for place in moved[1:]] == ["a", "other/c", "part/b", "index"]


def test_what_fails_before_all_is_written_changes_nothing(folder):
    with pytest.raises(OSError, match="full"), files_together(folder, last="index") as aside:
        write(aside, {"a": "new"})
        raise OSError("full")
    assert contents(folder) == OLD and not (folder / ".partial").exists()


@fork
def test_a_kill_at_any_moment_leaves_all_of_the_old_or_all_of_the_new(folder):
    call, seen = 0, []
    while killed_before(call, partial(write_together, folder)):
        finish_move(folder, "index")
        found = {name: text for name, text in contents(folder).items() if not name.startswith(".partial")}
        assert found in (OLD, OLD | NEW)
        seen.append(found == OLD)
        write_together(folder)  # goes on from whatever is left
        assert contents(folder) == OLD | NEW
        for name in NEW:
            (folder / name).unlink()
        write(folder, OLD)
        call += 1
    assert seen[0] and not seen[-1] and call > 20
    assert seen == sorted(seen, reverse=True)  # one moment decides


@fork
def test_until_it_is_finished_every_file_is_whole_and_the_index_is_the_last(tmp_path):
    """For who reads a new folder without finishing: one that has the index has all."""
    call = 0
    while killed_before(call, partial(write_together, tmp_path / str(call))):
        found = {path: path.read_text() for path in (tmp_path / str(call)).rglob("*") if path.is_file()}
        placed = {str(p.relative_to(tmp_path / str(call))): text for p, text in found.items()}
        placed = {name: text for name, text in placed.items() if not name.startswith(".")}
        assert placed.items() <= NEW.items() and ("index" not in placed or placed == NEW)
        call += 1


def test_two_may_finish_at_once(folder, monkeypatch):
    """A reader does so while the training that wrote it does, too: whichever comes second finds less to move."""
    replace, others = os.replace, []

    def with_another(path, place):
        if ".moving" in str(path) and not others:
            others.append(1)
            finish_move(folder, "index")
        replace(path, place)

    monkeypatch.setattr(os, "replace", with_another)
    write_together(folder)
    assert others and contents(folder) == OLD | NEW


def test_a_file_is_the_old_one_until_the_new_one_is_whole(folder):
    with pytest.raises(OSError, match="full"), whole_file(folder / "a") as beside:
        beside.write_text("ne")
        assert (folder / "a").read_text() == "old"
        raise OSError("full")
    assert contents(folder) == OLD
    with whole_file(folder / "a") as beside:
        beside.write_text("new")
    assert contents(folder) == OLD | {"a": "new"}


def test_what_is_written_is_flushed_before_it_is_moved(folder, monkeypatch):
    """A power cut may otherwise leave the name of the new file with nothing in it."""
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(("flush", os.fstat(handle).st_ino)), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda path, place: (calls.append(("move", place.name)), replace(path, place)))
    with whole_file(folder / "a") as beside:
        beside.write_text("new")
    written, inside = os.stat(folder / "a").st_ino, os.stat(folder).st_ino
    assert calls == [("flush", written), ("move", "a"), ("flush", inside)]
    calls.clear()
    write_together(folder)
    moved = calls.index(("move", ".moving"))
    flushed = {what for kind, what in calls[:moved] if kind == "flush"}
    assert {os.stat(folder / name).st_ino for name in NEW} <= flushed
