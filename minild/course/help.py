"""Help with the exercises: three hints and a worked solution for each, in files that an instructor may leave out."""

import re

from minild.data.location import data_path
from minild.errors import UserError

LEVELS = (1, 2, 3)


def hint(task, level):
    """A hint: a question (level 1), the way in words (2), or nearly the answer (3). UserError where there is none."""
    text = _read("hints", f"chapter{task.chapter}.md")
    section = re.search(rf"^## {re.escape(task.number)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    found = re.search(rf"^{level}\. (.*?)(?=^\d\. |\Z)", section[1] if section else "", re.M | re.S)
    if not found:
        raise UserError(f"this copy of minild has no hint of level {level} for {task.number}")
    return " ".join(found[1].split())


def solution(task):
    """A worked solution, the source of a Python file whose docstring explains it. UserError where there is none."""
    return _read("solutions", f"{task.number}.py")


def _read(kind, name):
    try:
        return data_path("course", kind, name).read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"this copy of minild has no {kind}: ask whoever gave it to you") from None
