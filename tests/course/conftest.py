"""Processes that stand by for all tests of the grader, each of which is a new one's work all the same."""

import contextlib
import textwrap

import pytest

from minild.course import grader
from minild.course.judge import Judge
from minild.course.processes import Workers
from minild.course.tasks import TASKS

SETTINGS = grader.Settings(seed=99, seconds=5, megabytes=256)
BY_NUMBER = {task.number: task for task in TASKS}


@pytest.fixture(scope="session")
def workers():
    with Workers() as workers:
        yield workers


@pytest.fixture
def shared(workers, monkeypatch):
    """Let the grader use the tests' own processes."""
    monkeypatch.setattr(grader, "Workers", lambda: contextlib.nullcontext(workers))


@pytest.fixture(scope="session")
def mark(workers):
    """mark(number, source) -> (status, hint) of one task for a file of this source."""

    def call(number, source, settings=SETTINGS):
        source = source if isinstance(source, bytes) else textwrap.dedent(source).encode()
        _, status, hint = grader._grade_task(Judge(BY_NUMBER[number], settings.seed), source, settings, workers)
        return status, hint

    return call
