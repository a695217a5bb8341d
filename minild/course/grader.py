"""Marking: every task of every file in a process of its own, several at once; what comes back is judged here."""

import collections
import json
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from minild.course import wire
from minild.course.find import tasks_in, tasks_of
from minild.course.judge import Judge
from minild.course.processes import Workers
from minild.course.tasks import TASKS
from minild.engine.cores import core_count
from minild.errors import UserError

SECONDS, MEGABYTES = 10, 1024  # of processor time and of memory, for a task
PATIENCE = 5  # seconds beyond twice the processor time: on a busy machine a process gets less than a whole core
LARGEST_FILE = 1 << 20  # bytes


class Result(NamedTuple):
    """What became of a task."""

    task: object
    status: str  # "not started", "wrong" or "right"
    hint: str = ""

    @property
    def points(self):
        return self.task.points if self.status == "right" else 0


class Report(NamedTuple):
    """What became of a file."""

    path: Path
    results: list

    @property
    def points(self):
        return sum(result.points for result in self.results)

    @property
    def most(self):
        return sum(result.task.points for result in self.results)


class Settings(NamedTuple):
    """Of a marking. The seed decides the arguments: one that students do not know, by default fresh every time."""

    seed: int
    seconds: int = SECONDS
    megabytes: int = MEGABYTES


def fresh_seed():
    return secrets.randbits(53)  # as many as a number of JSON has


def grade_file(path, chapter=None, settings=None):
    """The Report of one file: the tasks of a chapter, or of those chapters whose functions it holds."""
    path = Path(path)
    source = read_source(path)
    tasks = tasks_of(chapter) if chapter else tasks_in(source)
    if not tasks:
        raise UserError(f"{path} has no function of any exercise: give --chapter to mark it all the same")
    [report] = _grade({path: source}, tasks, settings or Settings(fresh_seed()), progress=False)
    return report


def grade_folder(folder, chapter=None, settings=None):
    """The Reports of every .py file in the folder and those below, on the same tasks, in the order of their names."""
    folder = Path(folder)
    found = [path for path in sorted(folder.rglob("*.py")) if path.is_file()]
    sources = {path: _source_or_reason(path) for path in found if not _hidden(path.relative_to(folder))}
    if not sources:
        raise UserError(f"{folder} holds no .py file: give a folder of submissions")
    readable = [source for source in sources.values() if isinstance(source, bytes)]
    held = {task.number for source in readable for task in tasks_in(source)}
    tasks = tasks_of(chapter) if chapter else [task for task in TASKS if task.number in held]
    if not tasks:
        raise UserError(f"no file in {folder} has a function of any exercise: give --chapter")
    return _grade(sources, tasks, settings or Settings(fresh_seed()), progress=True)


def _hidden(path):
    return any(part.startswith((".", "__")) for part in path.parts)


def read_source(path):
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _source_or_reason(path):
    """The bytes of a file, or the UserError that says why there are none: one file must not stop the others."""
    try:
        return read_source(path)
    except UserError as error:
        return error


def _grade(sources, tasks, settings, progress):
    judges = {task.number: Judge(task, settings.seed) for task in tasks}
    results = collections.defaultdict(dict)
    bar = tqdm(total=len(sources), unit="file", disable=not progress)
    with bar, Workers() as workers, ThreadPoolExecutor(core_count()) as pool:
        try:
            jobs = {
                pool.submit(_grade_task, judges[task.number], source, settings, workers): (path, task)
                for path, source in sources.items()
                for task in tasks
            }
            for job in as_completed(jobs):
                path, task = jobs[job]
                results[path][task.number] = job.result()
                bar.update(len(results[path]) == len(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [Report(path, [results[path][task.number] for task in tasks]) for path in sources]


def _grade_task(judge, source, settings, workers):
    if isinstance(source, UserError):
        return Result(judge.task, "wrong", printable(str(source)))
    if len(source) > LARGEST_FILE:
        return Result(judge.task, "wrong", f"the file is larger than {LARGEST_FILE >> 20} MB")
    outcome, text, arrays = ask_worker(judge.task, source, settings, workers)
    if outcome == "values":
        fault = judge.fault(arrays)
        return Result(judge.task, "wrong" if fault else "right", printable(fault or ""))
    if outcome == "not started":
        return Result(judge.task, outcome, printable(text))
    return Result(judge.task, "wrong", printable(text or "the process sent no result"))


def printable(text):
    """One line without control characters: a student's file may have had a say in it."""
    return "".join(c if c.isprintable() else " " for c in text)


def ask_worker(task, source, settings, workers):
    """Run the student's file for a task in a process of its own -> (outcome, text, arrays) as wire.unpack gives it."""
    request = json.dumps({"task": task.number, **settings._asdict()}).encode() + b"\n" + source
    message, late, status = workers.ask(request, _patience(settings))
    try:
        return wire.unpack(message)
    except ValueError:
        return "wrong", _last_words(late, status, settings), {}


def _patience(settings):
    return 2 * settings.seconds + PATIENCE


def _last_words(late, status, settings):
    if late:
        return f"no answer within {_patience(settings)} seconds: an endless loop, or asleep"
    if hasattr(signal, "SIGXCPU") and status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"took more than {settings.seconds} seconds: an endless loop?"
    return f"the process ended before the function returned (exit status {status})"
