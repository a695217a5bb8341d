"""Tasks by their number, by their chapter, and by the functions that a file defines."""

import re

from minild.course.tasks import TASKS
from minild.errors import UserError


def task_of(number):
    """The task of a number such as "2.1". UserError, with the nearest, for one that is no task's."""
    if not isinstance(number, (str, float, int)):
        raise UserError(f'expected the number of an exercise, such as "2.1", got a {type(number).__name__}')
    number = str(number).strip()
    for task in TASKS:
        if task.number == number:
            return task
    match = re.fullmatch(r"(\d{1,9})(?:\.(\d{1,9}))?", number)
    if not match:
        raise UserError(f"{number!r} is no number of an exercise: they go from {TASKS[0].number} to {TASKS[-1].number}")
    place = int(match[1]), int(match[2] or 1)
    nearest = min(TASKS, key=lambda task: [abs(a - b) for a, b in zip(place, map(int, task.number.split(".")))])
    raise UserError(f"no exercise {number}: the nearest is {nearest.number}, {nearest.title}")


def tasks_of(chapter):
    """The tasks of a chapter. UserError for one that has none."""
    tasks = [task for task in TASKS if task.chapter == chapter]
    if not tasks:
        chapters = sorted({task.chapter for task in TASKS})
        raise UserError(f"no exercises for chapter {chapter}: there are some for {', '.join(map(str, chapters))}")
    return tasks


def tasks_in(source):
    """The tasks of every chapter of which the source, bytes that need not be Python, defines a function."""
    defined = set(re.findall(r"^[ \t\f]*def[ \t\f]+(\w+)", source.decode("utf-8", "replace"), re.M))
    chapters = {task.chapter for task in TASKS if task.function_name in defined}
    return [task for task in TASKS if task.chapter in chapters]
