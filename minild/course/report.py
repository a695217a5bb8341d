"""What a marking is written as: a table, JSON, Gradescope's results.json, a CSV of a folder."""

import csv
import io
import json
import textwrap

WIDTH = 100  # of a hint in the table
SCREENED = "=+-@\t\r"  # first characters that a spreadsheet takes for a formula


def table(report):
    """The lines of one file's table: task, points, what became of it; below it, how it is wrong."""
    total = f"{report.points}/{report.most}"
    return [*(line for result in report.results for line in rows(result)), f"total {total:>5}"]


def rows(result):
    """The lines of one task's result."""
    task, points = result.task, f"{result.points}/{result.task.points}"
    head = f"{task.number:<5} {points:>5}  {result.status:<12} {task.title} ({task.function_name})"
    return [head, *textwrap.wrap(result.hint, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 13)]


def overview(reports):
    """One line a file: its points and its name."""
    return [f"{f'{report.points}/{report.most}':>7}  {report.path}" for report in reports]


def as_json(reports, settings):
    """All that is known of a marking, its seed too: with it, the marking can be repeated."""
    files = [
        {
            "file": str(report.path),
            "points": report.points,
            "of": report.most,
            "tasks": [
                {
                    "number": result.task.number,
                    "title": result.task.title,
                    "function": result.task.function_name,
                    "status": result.status,
                    "points": result.points,
                    "of": result.task.points,
                    "hint": result.hint,
                }
                for result in report.results
            ],
        }
        for report in reports
    ]
    return json.dumps({"seed": settings.seed, "files": files}, indent=2, ensure_ascii=False) + "\n"


def as_gradescope(report):
    """results.json of a Gradescope autograder: a test for every task."""
    tests = [
        {
            "number": result.task.number,
            "name": f"{result.task.title} ({result.task.function_name})",
            "score": result.points,
            "max_score": result.task.points,
            "status": "passed" if result.status == "right" else "failed",
            "output": f"{result.status}: {result.hint}" if result.hint else result.status,
            "visibility": "visible",
        }
        for result in report.results
    ]
    return json.dumps({"score": report.points, "visibility": "visible", "tests": tests}, indent=2) + "\n"


def as_csv(reports):
    """One row a file: name, points, points of each task, and the remarks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "points", "of", *(result.task.number for result in reports[0].results), "remarks"])
    for report in reports:
        name = str(report.path)
        remarks = [f"{r.task.number} {r.status}: {r.hint}".removesuffix(": ") for r in report.results if not r.points]
        points = [result.points for result in report.results]
        screened = f"./{name}" if name.startswith(tuple(SCREENED)) else name
        writer.writerow([screened, report.points, report.most, *points, "; ".join(remarks)])
    return text.getvalue()
