"""The figures as text, and the files that they are written to."""

import json

import numpy as np

from minild.pipelines.sheet import draw_sheet

HEADERS = (
    "work", "batch", "side", "minild min", "median", "PyTorch min", "median", "ratio of min", "of medians",
    "GFLOP", "minild of peak", "PyTorch of peak", "minild memory", "PyTorch memory", "ways",
)


def table(headers, rows):
    """Rows of strings in columns: the first to the left, the others to the right, as Markdown has them."""
    columns = list(zip(headers, *rows))
    widths = [max(3, *map(len, column)) for column in columns]

    def line(cells):
        aligned = [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(aligned)} |"

    rule = [f"{'-' * (width - 1)}{':' if i else '-'}" for i, width in enumerate(widths)]
    return "\n".join([line(headers), line(rule), *map(line, rows)])


def write(output, text, figures, tiles, labels, columns):
    """Write `output`.md, .json and, of pictures and their labels, .png; and print the text."""
    output.with_suffix(".md").write_text(text, encoding="utf-8")
    output.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draw_sheet(output.with_suffix(".png"), np.stack(tiles), labels, columns=columns)
    print(text)


def milliseconds(seconds):
    """Seconds as text: three figures, or all before the point."""
    value = seconds * 1000
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} ms"


def size(count):
    """Bytes as text, in units of 1024: MB, or GB from one on; "-" for None."""
    if count is None:
        return "-"
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def share(operations, seconds, peak):
    return f"{operations / seconds / peak:.0%}"


def row(result, peak):
    """A line of the table: a result of timing.compare; peak in operations a second."""
    ours, theirs = result["seconds"]["minild"], result["seconds"]["PyTorch"]
    where = "resident" if result["memory"]["minild"]["device"] is None else "device"
    return (
        result["work"],
        str(result["batch"]),
        str(result["side"]),
        milliseconds(ours["minimum"]),
        milliseconds(ours["median"]),
        milliseconds(theirs["minimum"]),
        milliseconds(theirs["median"]),
        f"{ours['minimum'] / theirs['minimum']:.2f}",
        f"{ours['median'] / theirs['median']:.2f}",
        f"{result['operations'] / 1e9:.1f}",
        share(result["operations"], ours["median"], peak),
        share(result["operations"], theirs["median"], peak),
        size(result["memory"]["minild"][where]),
        size(result["memory"]["PyTorch"][where]),
        " / ".join(result["ways"].values()),
    )


def heading(facts):
    """The lines above all."""
    return "\n".join(f"{what}: {which}" for what, which in facts.items())


def peaks(rates):
    """The line above the table: what its shares are of."""
    each = ", ".join(f"{library} {rate / 1e9:.0f} GFLOP/s" for library, rate in rates.items())
    return f"float32 matrix product: {each}; shares are of the greater, by PyTorch's count of operations"


def footnote(results):
    """What a process takes that has imported a library and done nothing: the table's memory includes it."""
    memory = results[0]["memory"]
    parts = ", ".join(f"{library} {size(memory[library]['import'])}" for library in memory)
    return f"memory at most, of a process of its own, the bare import included: {parts}"


def profile(work, rows, total):
    """The table of profile.measure()'s rows, slowest first, and what lies outside of them."""
    inside = sum(seconds for _, _, seconds in rows)
    rows = [*sorted(rows, key=lambda row: -row[2]), ("all else", 1, total - inside)]
    cells = [(name, str(calls), milliseconds(seconds), f"{seconds / total:.1%}") for name, calls, seconds in rows]
    title = f"{work.key}: {work.title}, batch {work.batch}, one thread, {milliseconds(total)}"
    return f"{title}\n{table(('operation', 'calls', 'time', 'share'), cells)}"
