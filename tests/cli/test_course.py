"""minild exercise, hint, solution and grade: the files they write, what they print, and what they refuse."""

import json

import pytest
from refusal import refused

from minild.course.stubs import exercise_text
from minild.data.location import data_path


def test_the_commands(run, tmp_path):
    assert run("exercise", 6) == (0, "chapter6.py\n", "")
    stubs = (tmp_path / "chapter6.py").read_text(encoding="utf-8")
    assert stubs == exercise_text(6, "chapter6.py")
    status, out, err = run("exercise", 6)
    assert (status, out) == (2, "") and "may be somebody's work" in err
    assert run("exercise", 7)[0] == run("exercise", 1, "--output", "no/folder.py")[0] == 2

    handed_in = tmp_path / "handed in" / "anna"
    handed_in.mkdir(parents=True)
    body_of_task = "return signal_level * z + noise_level * noise"
    written = stubs.replace('raise NotImplementedError("task 6.2: q(z_t | z_0)")', body_of_task)
    written = written.replace('raise NotImplementedError("task 6.1: the noise schedule")', "return 0 * start")
    (handed_in / "=chapter6.py").write_text(written, encoding="utf-8")
    (handed_in.parent / "bert.py").write_text("def (", encoding="utf-8")
    (handed_in.parent / "folder.py").mkdir()
    (handed_in.parent / ".hidden.py").write_text("", encoding="utf-8")
    file = handed_in / "=chapter6.py"
    status, out, err = run("grade", file, "--json", "r.json", "--gradescope", "g.json", "--csv", "r.csv", "--seed", 5)
    assert (status, err) == (0, "")
    assert "6.2     1/1  right        q(z_t | z_0) (add_noise)" in out
    assert "betas: shape (), expected" in out
    assert out.endswith("total  1/12\n")
    results = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert results["seed"] == 5
    assert [t["status"] for t in results["files"][0]["tasks"]] == ["wrong", "right", *["not started"] * 4]
    scope = json.loads((tmp_path / "g.json").read_text(encoding="utf-8"))
    assert scope["score"] == sum(t["score"] for t in scope["tests"]) == 1
    assert sum(t["max_score"] for t in scope["tests"]) == 12
    assert [t["status"] for t in scope["tests"]] == ["failed", "passed", *["failed"] * 4]

    status, out, err = run("grade", "handed in", "--csv", "m.csv")
    assert status == 0 and "2/2" in err  # the bar
    assert [line.split()[0] for line in out.splitlines()] == ["1/12", "0/12"]
    rows = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "file,points,of,6.1,6.2,6.3,6.4,6.5,6.6,remarks"
    assert rows[1].startswith("handed in/anna/=chapter6.py,1,12,0,1,0,0,0,0,") and "6.1 wrong: betas: shape" in rows[1]
    assert rows[2].startswith("handed in/bert.py,0,12,0,0,0,0,0,0,") and "not valid Python" in rows[2]


def test_refusals(run, tmp_path):
    (tmp_path / "other.py").write_text("def f(): pass\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for arguments, reason in [
        (["nowhere.py"], "is not there"),
        (["other.py"], "no function of any exercise"),
        (["other.py", "--chapter", 40], "no exercises for chapter 40"),
        (["empty"], "holds no .py file"),
        (["empty", "--gradescope", "g.json"], "--gradescope is for one file"),
        (["other.py", "--json", "no/folder.json"], "cannot write no"),
        (["."], "no file in . has a function of any exercise"),
    ]:
        status, out, err = run("grade", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), arguments
        assert reason in err


@pytest.mark.skipif(not data_path("course", "solutions").is_dir(), reason="a copy without solutions")
def test_hints_and_a_solution(run):
    status, first, err = run("hint", "2.1")
    assert status == 0
    assert err == "minild: hint 1 of 3 to 2.1, a linear layer, backwards; for more: minild hint 2.1 --level 2\n"
    assert first.startswith("Begin with one number. ") and max(map(len, first.splitlines())) <= 100
    assert run("hint", "2.1", "--level", 1) == (0, first, err)
    status, last, err = run("hint", "2.1", "--level", 3)
    assert status == 0 and last != first and err.endswith("; for more: minild solution 2.1\n")
    status, out, err = run("solution", "2.1")
    assert (status, err) == (0, "")
    assert out.startswith('# 2.1, a linear layer, backwards\n"""') and "\ndef linear_backward(dy, cache):\n" in out
    compile(out, "a solution", "exec")


def test_help_that_is_not_there(run, monkeypatch, tmp_path):
    for arguments, reason in [
        (["hint", "2.9"], "no exercise 2.9: the nearest is 2.4, a gradient checker"),
        (["solution", "2"], "no exercise 2: the nearest is 2.1, a linear layer, backwards"),
        (["hint", "linear"], "'linear' is no number of an exercise: they go from 1.1 to 6.6"),
        (["hint", "2.1", "--level", "4"], "--level: invalid choice: "),
        (["hint"], "NUMBER"),
    ]:
        assert reason in refused(run(*arguments))
    monkeypatch.setattr("minild.course.help.data_path", tmp_path.joinpath)  # an instructor's handout
    for command in ("hint", "solution"):
        assert f"this copy of minild has no {command}s: ask whoever gave it to you" in refused(run(command, "2.1"))
