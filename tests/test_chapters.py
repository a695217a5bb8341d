"""The notebooks as they are committed: executed, whole, small, and free of this or that machine's traces.

That they run is for `pytest --nbmake chapters` to say. After it (with --overwrite) these tests look at what came out.
"""

import json
import re
from pathlib import Path

import pytest

from minild.course.tasks import CHAPTERS, TASKS

FOLDER = Path(__file__).parents[1] / "chapters"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 1_500_000  # bytes
TRACES = re.compile(r"/(?:home|root|tmp|Users|work|opt|usr|mnt)/|[A-Z]:\\\\|site-packages|Traceback|Warning")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def chapter(request):
    """(number, cells) of a notebook."""
    cells = json.loads(request.param.read_text(encoding="utf-8"))["cells"]
    return int(request.param.name[:2]), cells


def source(cells, kind):
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def outputs(cells):
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def test_every_chapter_of_the_course_has_its_notebook():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(CHAPTERS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_size(path):
    assert path.stat().st_size < LARGEST


def test_was_executed_from_a_clean_kernel_top_to_bottom(chapter):
    counts = [cell["execution_count"] for cell in chapter[1] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_hold_no_error_no_warning_and_no_path(chapter):
    for output in outputs(chapter[1]):
        assert output["output_type"] != "error", output
        assert output.get("name") != "stderr", output["text"]
        text = {kind: part for kind, part in output.get("data", {}).items() if kind.startswith("text/")}
        found = TRACES.search(json.dumps([output.get("text", ""), text]))
        assert not found, f"{found} in {output}"


def test_has_figures(chapter):
    assert sum("image/png" in output.get("data", {}) for output in outputs(chapter[1])) >= 5


def test_begins_with_the_environment(chapter):
    first = source(chapter[1], "code")[0]
    assert first.startswith("try:\n    import environment\n") and "\n    raise\n\nenvironment.check()" in first


def test_says_what_it_gives_and_costs_and_where_it_comes_from(chapter):
    number, cells = chapter
    text = "\n".join(source(cells, "markdown"))
    assert text.startswith(f"# {number}. ")
    for part in ("**After this chapter you can**", "**What it costs**", "\n## Exercises\n", "\n## Sources\n"):
        assert part in text, part


def test_leads_to_each_of_its_exercises(chapter):
    number, cells = chapter
    text = "\n".join(source(cells, "markdown")).split("\n## Exercises\n")[1]
    assert f"minild exercise {number}" in text and f"minild grade chapter{number}.py" in text
    assert [task.number for task in TASKS if task.chapter == number and f"{task.number} " not in text] == []
