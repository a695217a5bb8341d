"""Exercises: stubs made of the library's own functions, and the marking of what students make of them.

    check(number, function)          what the grader says of a function, at once, in a notebook   (notebook)
    exercise_text(chapter)           the file that students are handed                            (stubs)
    grade_file(path), grade_folder   -> Report: each task not started, wrong, right               (grader)

`tasks.TASKS` is the one table; a task is one entry. A student's function runs in a process of its own (worker),
confined (confine) and without the library's own solution; what it returns is sent as bytes (wire) and judged where the
student's code never was (judge).
"""

__all__ = ["check"]


def __getattr__(name):
    if name == "check":  # at its first use: a worker, which imports this package, too, needs no grader
        from minild.course.notebook import check

        return check
    raise AttributeError(f"module 'minild.course' has no attribute {name!r}")
