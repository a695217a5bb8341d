"""The file that students are handed: a chapter's functions, with the library's signatures, their briefs, no bodies."""

import inspect
import textwrap

from minild.course.briefs import BRIEFS
from minild.course.find import tasks_of
from minild.course.task import resolve
from minild.course.tasks import CHAPTERS

WIDTH = 120
HEAD = '''\
"""Chapter {chapter}, {title}: exercises of minild.

Every function below is one to be written. Its text says what goes in, what comes out, and what it may call; the way
from the one to the other is yours to find. Put your code where it says `raise NotImplementedError`, then run

    minild grade {file}

It says which tasks are right and, of those that are not, how they are wrong. If you are stuck, `minild hint {number}`
gives a first hint.

Your functions may use NumPy, whatever else you write here, and the parts of minild that their texts name; the rest of
minild is withheld while they are graded. No task needs another: where a function calls one that is itself a task, it
gets the library's. Leave the functions' names and parameters as they are.

Arguments come in float64 and in float32, and results have their dtype. Mind np.sqrt: of one number it gives a float64,
which makes float64 of float32; math.sqrt does not.
"""
'''


def exercise_text(chapter, file="FILE"):
    """The Python source of a chapter's exercises. UserError for a chapter that has none."""
    tasks = tasks_of(chapter)
    by_function = {}
    for task in tasks:
        by_function.setdefault(task.function_name, []).append(task)
    head = HEAD.format(chapter=chapter, title=CHAPTERS[chapter], file=file, number=tasks[0].number)
    return "\n\n".join([head + _imports(tasks), *map(_stub, by_function.values())])


def _imports(tasks):
    """The imports that the tasks may need, of what is not itself a task here."""
    names = {task.function_name for task in tasks}
    uses = {use for task in tasks for use in task.uses if use.split(":")[1] not in names}
    if any(len(task.devices) > 1 for task in tasks):
        uses.add("minild.backend:get_array_module")
    if any("GradientError" in BRIEFS[name] for name in names):
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
    message = f"task {numbers}: {first.title}" if len(tasks) == 1 else f"tasks {numbers}"
    text = f'"""{brief_of(first)}\n\n{_instructions(tasks)}\n"""'
    docstring = textwrap.indent(text, "    ", lambda line: bool(line.strip()))
    body = [docstring, f'    raise NotImplementedError("{message}")']
    return "\n".join([_forward_of(first.stands_for) + _signature(first), *body]) + "\n"


def brief_of(task):
    """The brief of a task's function, its lines filled to the width of a docstring."""
    entries = []
    for line in BRIEFS[task.function_name].strip().splitlines():
        if line.startswith("  "):
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line)
    return "\n".join(textwrap.fill(entry, WIDTH - 8, subsequent_indent="  ") for entry in entries)


def _instructions(tasks):
    """What each task is worth; then, once for all of them, what to return and what may be called."""
    worth = [f"Task {t.number} ({t.points} point{'s' if t.points > 1 else ''}): {t.title}." for t in tasks]
    uses = sorted({use.split(":")[1] for task in tasks for use in task.uses})
    calls = [f"It may call {', '.join(uses)}."] if uses else []
    rules = dict.fromkeys([*(t.returns for t in tasks), *filter(None, (t.note for t in tasks)), *calls])
    return "\n".join([*worth, textwrap.fill(" ".join(rules), WIDTH - 8)])


def _signature(task):
    signature = task.signature
    line = f"def {task.function_name}{signature}:"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"def {task.function_name}(", *(f"    {p}," for p in signature.parameters.values()), "):"])


def _forward_of(stands_for):
    """For a method, how the library's class is made and what its forward does, as a comment."""
    owner, _, _ = stands_for.rpartition(".")
    if ":" not in owner:
        return ""
    parts = [inspect.getsource(getattr(resolve(owner), name)) for name in ("__init__", "forward")]
    lines = ["The layer's own:", *"\n".join(parts).splitlines()]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
