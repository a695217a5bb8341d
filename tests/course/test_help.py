"""Hints and solutions, held to the grader's checks."""

import ast

import pytest

from course.formulas import answers
from minild.course import help
from minild.course.stubs import exercise_text
from minild.course.tasks import CHAPTERS, TASKS
from minild.data.location import data_path
from minild.errors import UserError

FOLDER = data_path("course")
pytestmark = pytest.mark.skipif(not (FOLDER / "solutions").is_dir(), reason="a copy without solutions")
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.number)


@every_task
def test_a_solution_gets_full_marks(mark, task):
    assert mark(task.number, help.solution(task)) == ("right", "")


@every_task
def test_a_solution_is_what_its_stub_asks_for(task):
    """One function, with the stub's parameters, explained; nothing of minild that the stub does not name."""
    tree = ast.parse(help.solution(task))
    explanation = ast.get_docstring(tree)
    assert len(explanation) > 60 and explanation[0].isupper() | explanation.startswith(("y", "∂"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    [stub] = [n for n in ast.parse(exercise_text(task.chapter)).body if getattr(n, "name", "") == task.function_name]
    assert ast.unparse(function.args) == ast.unparse(stub.args)
    imports = {f"{node.module}:{a.name}" for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert imports <= {*task.uses, "minild.backend:get_array_module", "minild.gradcheck:GradientError"}


@every_task
def test_three_hints_tell_more_and_more(task):
    hints = [help.hint(task, level) for level in help.LEVELS]
    assert len(set(hints)) == 3
    for hint in hints:
        assert 20 < len(hint) < 700 and hint[0] != " " and "##" not in hint
    assert "?" in hints[0] or "." in hints[0]


@every_task
def test_no_hint_of_the_first_two_levels_is_an_answer(task):
    """Not to its own task, nor to another of the chapter."""
    others = [other for other in TASKS if other.chapter == task.chapter]
    for level in help.LEVELS[:2]:
        assert answers("\n\n".join(help.hint(other, level) for other in others), task) == []


@pytest.mark.parametrize("number", ["2.1", "2.2", "4.5", "5.2", "5.3", "5.4", "5.5", "5.6", "6.1", "6.2", "6.4"])
def test_a_hint_of_the_last_level_may_be_one(number):
    """And is found to be: so the test above would find a formula in a hint."""
    [task] = [task for task in TASKS if task.number == number]
    assert answers(help.hint(task, 3), task)


def test_there_is_no_help_without_its_exercise():
    assert {path.stem for path in (FOLDER / "solutions").glob("*.py")} == {task.number for task in TASKS}
    assert {path.name for path in (FOLDER / "hints").iterdir()} == {f"chapter{n}.md" for n in CHAPTERS}
    text = "".join(path.read_text(encoding="utf-8") for path in (FOLDER / "hints").iterdir())
    assert text.count("\n## ") == len(TASKS)


def test_a_handout_may_lack_them(monkeypatch, tmp_path):
    monkeypatch.setattr(help, "data_path", tmp_path.joinpath)
    with pytest.raises(UserError, match=r"^this copy of minild has no solutions: ask whoever gave it to you$"):
        help.solution(TASKS[0])
    with pytest.raises(UserError, match=r"^this copy of minild has no hints: ask whoever gave it to you$"):
        help.hint(TASKS[0], 1)
    (tmp_path / "course" / "hints").mkdir(parents=True)
    (tmp_path / "course" / "hints" / "chapter1.md").write_text("# Hints\n\n## 1.1\n\n1. Look.\n", encoding="utf-8")
    assert help.hint(TASKS[0], 1) == "Look."
    for task, level in ((TASKS[0], 2), (TASKS[1], 1)):
        with pytest.raises(UserError, match=f"no hint of level {level} for {task.number}"):
            help.hint(task, level)
