"""`minild exercise`, `hint`, `solution` and `grade`: a chapter's exercises, help with them, and their marking."""

import textwrap
from pathlib import Path

from minild.cli import arguments as options
from minild.cli.terminal import answer, note
from minild.errors import UserError

EXERCISE = "Prints the name of the file, in which every task is a function to be written."
WIDTH = 100  # of a hint
HINT = "There are three: a question, the way in words, and nearly the answer."
SOLUTION = "It is one of several ways. Try the three hints first: minild hint NUMBER."
GRADE = (
    "Each task is not started, wrong (with a word on how), or right. A student's code runs in a process of its own, "
    "with limits of time and memory, and without the library's solution."
)


def add(commands):
    command = options.add_command(commands, "exercise", exercise, "write the exercises of a chapter", EXERCISE)
    command.add_argument("chapter", type=options.at_least(1, int), help="number of the chapter")
    output = "the file to write (default: chapterN.py)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)

    number = "of the exercise, such as 2.1"
    command = options.add_command(commands, "hint", hint, "give a hint to an exercise", HINT)
    command.add_argument("number", metavar="NUMBER", help=number)
    level = "how much it tells (default: 1)"
    command.add_argument("--level", type=int, choices=(1, 2, 3), default=1, help=level)

    command = options.add_command(commands, "solution", solution, "show a worked solution of an exercise", SOLUTION)
    command.add_argument("number", metavar="NUMBER", help=number)

    command = options.add_command(commands, "grade", grade, "mark a student's file, or a folder of them", GRADE)
    command.add_argument("path", type=options.path, metavar="FILE|FOLDER", help="a student's file, or a folder of them")
    chapter = "mark this one (default: those found)"
    command.add_argument("--chapter", type=options.at_least(1, int), metavar="N", help=chapter)
    command.add_argument("--csv", type=options.path, metavar="FILE", help="write a row for every file")
    command.add_argument("--json", type=options.path, metavar="FILE", help="write all results, with their seed")
    gradescope = "write Gradescope's results.json, for a file"
    command.add_argument("--gradescope", type=options.path, metavar="FILE", help=gradescope)
    seconds = "of processor time a task (default: 10)"
    command.add_argument("--seconds", type=options.at_least(1, int), default=10, help=seconds)
    memory = "of memory a task may ask for, in MB (default: 1024)"
    command.add_argument("--memory", type=options.at_least(16, int), default=1024, metavar="MB", help=memory)
    seed = "of the arguments, to repeat a marking (default: a fresh one, which no student can know)"
    command.add_argument("--seed", type=options.at_least(0, int), metavar="N", help=seed)


def exercise(arguments):
    """Write the stubs of a chapter, over no file that is there."""
    from minild.course.stubs import exercise_text

    file = arguments.output or Path(f"chapter{arguments.chapter}.py")
    text = exercise_text(arguments.chapter, file.name)
    try:
        with open(file, "x", encoding="utf-8", newline="\n") as stubs:
            stubs.write(text)
    except FileExistsError:
        raise UserError(f"{file} exists, and may be somebody's work: choose another --output") from None
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None
    answer(file)


def hint(arguments):
    """Show a hint, and say where the next is to be had."""
    from minild.course.find import task_of
    from minild.course.help import LEVELS
    from minild.course.help import hint as hint_of

    task, level = task_of(arguments.number), arguments.level
    answer(*textwrap.wrap(hint_of(task, level), WIDTH))
    more = f"hint {task.number} --level {level + 1}" if level < LEVELS[-1] else f"solution {task.number}"
    note(f"hint {level} of {len(LEVELS)} to {task.number}, {task.title}; for more: minild {more}")


def solution(arguments):
    """Show a solution."""
    from minild.course.find import task_of
    from minild.course.help import solution as solution_of

    task = task_of(arguments.number)
    answer(f"# {task.number}, {task.title}", solution_of(task).rstrip())


def grade(arguments):
    """Mark a file or a folder, write what was asked for, and show the table."""
    from minild.course import grader, report
    from minild.pipelines import output

    written = [arguments.csv, arguments.json, arguments.gradescope]
    for file in filter(None, written):
        output.require_writable(file)
    if not arguments.path.exists():
        raise UserError(f"{arguments.path} is not there: give a student's file, or a folder of them")
    seed = grader.fresh_seed() if arguments.seed is None else arguments.seed
    settings = grader.Settings(seed, arguments.seconds, arguments.memory)
    if arguments.path.is_dir():
        if arguments.gradescope:
            raise UserError("--gradescope is for one file: use --csv or --json for a folder")
        reports = grader.grade_folder(arguments.path, arguments.chapter, settings)
        lines = report.overview(reports)
    else:
        reports = [grader.grade_file(arguments.path, arguments.chapter, settings)]
        lines = report.table(reports[0])
    makers = (report.as_csv, lambda r: report.as_json(r, settings), lambda r: report.as_gradescope(r[0]))
    for file, make in zip(written, makers):
        if file:
            with output.whole_file(file) as stream:
                stream.write(make(reports).encode("utf-8", "replace"))
    answer(*lines)
