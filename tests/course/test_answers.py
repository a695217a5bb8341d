"""The page of answers has one for every question of the chapters."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "chapters"
ANSWERS = (FOLDER / "ANSWERS.md").read_text(encoding="utf-8")


def numbers(text):
    """Of the items of a numbered list."""
    return [int(number) for number in re.findall(r"^(\d+)\. ", text, re.M)]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_question_has_an_answer(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    questions = [part.split("\n## ")[0] for part in text.split("To think about")[1:]]
    asked = sum(len(numbers(part)) for part in questions)
    answered = re.split(rf"^## {int(path.name[:2])}\. .*$", ANSWERS, flags=re.M)[1].split("\n## ")[0]
    assert asked and numbers(answered) == list(range(1, asked + 1))
