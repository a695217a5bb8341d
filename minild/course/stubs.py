"""The file that students are handed: a chapter's functions, signatures and docstrings, without bodies."""

import inspect
import textwrap

from minild.course.find import tasks_of
from minild.course.task import resolve
from minild.course.tasks import CHAPTERS

WIDTH = 120
HEAD = '''\
"""Chapter {chapter}, {title}: exercises of minild.

Put the body of a function where it says `raise NotImplementedError`. What a function takes and returns is in its text,
which is the library's. Then

    minild grade {file}

tells which tasks are right and, of those that are not, how they are wrong. Your function may use NumPy, whatever else
you write here, and the parts of minild that its text names; the rest of minild is withheld while it is graded. No task
needs another: where one calls a function that is itself a task, it gets the library's. Leave the functions' names as
they are.
"""
'''


def exercise_text(chapter, file="FILE"):
    """The Python source of a chapter's exercises. UserError for a chapter that has none."""
    tasks = tasks_of(chapter)
    by_function = {}
    for task in tasks:
        by_function.setdefault(task.function_name, []).append(task)
    head = HEAD.format(chapter=chapter, title=CHAPTERS[chapter], file=file)
    return "\n\n".join([head + _imports(tasks), *map(_stub, by_function.values())])


def _imports(tasks):
    """The imports that the tasks may need, of what is not itself a task here."""
    names = {task.function_name for task in tasks}
    uses = {use for task in tasks for use in task.uses if use.split(":")[1] not in names}
    if any(len(task.devices) > 1 for task in tasks):
        uses.add("minild.backend:get_array_module")
    if any("GradientError" in task.note for task in tasks):
        uses.add("minild.gradcheck:GradientError")
    by_module = {}
    for use in sorted(uses):
        module, name = use.split(":")
        by_module.setdefault(module, []).append(name)
    lines = [f"from {module} import {', '.join(found)}" for module, found in by_module.items()]
    return "\nimport numpy as np\n" + "".join(["\n", *(line + "\n" for line in lines)] if lines else [])


def _stub(tasks):
    """One function, which may be several tasks."""
    first = tasks[0]
    numbers = ", ".join(task.number for task in tasks)
    text = "\n\n".join([_text_of(first.stands_for), *map(_instruction, tasks)])
    message = f"task {numbers}: {first.title}" if len(tasks) == 1 else f"tasks {numbers}"
    docstring = textwrap.indent(f'"""{text}\n"""', "    ", lambda line: bool(line.strip()))
    body = [docstring, f'    raise NotImplementedError("{message}")']
    return "\n".join([_forward_of(first.stands_for) + _signature(first), *body]) + "\n"


def _signature(task):
    signature = task.signature
    line = f"def {task.function_name}{signature}:"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"def {task.function_name}(", *(f"    {p}," for p in signature.parameters.values()), "):"])


def _text_of(stands_for):
    """The docstring; for a method its class's, and its own if there is one."""
    own = inspect.getdoc(resolve(stands_for))
    owner, _, method = stands_for.rpartition(".")
    if ":" not in owner:
        return own
    return "\n\n".join(filter(None, [f"The {method} of this layer:", inspect.getdoc(resolve(owner)), own]))


def _instruction(task):
    points = "1 point" if task.points == 1 else f"{task.points} points"
    uses = sorted(use.split(":")[1] for use in task.uses)
    calls = f" It may call {', '.join(uses)}." if uses else ""
    text = " ".join(filter(None, [f"Task {task.number} ({points}): {task.title}.", task.returns, task.note])) + calls
    return textwrap.fill(text, WIDTH - 8)


def _forward_of(stands_for):
    """For a method, how the library's class is made and what its forward does, as a comment."""
    owner, _, _ = stands_for.rpartition(".")
    if ":" not in owner:
        return ""
    parts = [inspect.getsource(getattr(resolve(owner), name)) for name in ("__init__", "forward")]
    lines = ["The layer's own:", *"\n".join(parts).splitlines()]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
