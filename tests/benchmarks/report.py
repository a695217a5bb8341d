"""The figures as text, and the files that they are written to."""

import json

import numpy as np

from minild.pipelines.sheet import draw_sheet

from .isa import told

HEADERS = (
    "work", "batch", "side", "minild min", "median", "PyTorch min", "median", "ratio of min", "of medians",
    "GFLOP", "minild of peak", "PyTorch of peak", "minild memory", "PyTorch memory", "ways",
)
PEER_HEADERS = ("work", "peer", "minild min", "median", "peer min", "median", "ratio of min", "of medians",
                "peer memory")  # fmt: skip
ALONE_HEADERS = ("command", "", "min", "median", "what it gave")


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
    return (
        result["work"],
        str(result["batch"]),
        str(result["side"] or "-"),
        *_two(ours, theirs),
        f"{result['operations'] / 1e9:.1f}",
        share(result["operations"], ours["median"], peak),
        share(result["operations"], theirs["median"], peak),
        *memories(result),
        " / ".join(result["ways"].values()),
    )


def memories(result):
    """What minild and PyTorch take at most, in cells: on the GPU where the work is done there."""
    kinds = [result["memory"][name] for name in ("minild", "PyTorch")]
    return tuple(size(each["resident"] if each["device"] is None else each["device"]) for each in kinds)


def _two(ours, theirs):
    """Cells of two summaries of seconds, and of their ratios."""
    times = [milliseconds(each[what]) for each in (ours, theirs) for what in ("minimum", "median")]
    return *times, *(f"{ours[what] / theirs[what]:.2f}" for what in ("minimum", "median"))


def peer_rows(result):
    """Lines of the table of peers: one for each that did the work of a result of timing.compare."""
    return [
        (result["work"], peer, *_two(pair["seconds"]["minild"], pair["seconds"][peer]),
         size(pair["memory"][peer]["resident"]))
        for peer, pair in result["peers"].items()
    ]  # fmt: skip


def alone_row(result):
    """A line of the table of commands: a result of alone.measure."""
    seconds = result["seconds"]["minild"]
    times = (f"{seconds[what]:.1f} s" for what in ("minimum", "median"))
    return result["work"], result["title"], *times, found(result)


def found(result):
    """What a command's pipeline draws, in a cell."""
    if not result["found"]:
        return "-"
    return f"{result['found']['all']:.1%} of {result['found']['drawn']:,} captions followed"


def tables(figures):
    """All tables of a run, each under a line that names the instruction set and the kernels; those of nothing not."""
    name, works, text = told(figures["isa"], figures["kernels"]), figures["works"], []
    if works:
        peak = max(figures["gemm"].values())
        text += [name, peaks(figures["gemm"]), table(HEADERS, [row(each, peak) for each in works]), footnote(works)]
    if rows := [line for each in works for line in peer_rows(each)]:
        text += [f"Peers: {name}", table(PEER_HEADERS, rows)]
    if figures["alone"]:
        text += [f"minild alone: {name}", table(ALONE_HEADERS, list(map(alone_row, figures["alone"])))]
    return "\n".join(text)


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


def profile(work, rows, total, kernels):
    """The table of Profiler.profile()'s rows, slowest first, and what lies outside of them; `kernels` as isa.told."""
    inside = sum(seconds for _, _, seconds in rows)
    rows = [*sorted(rows, key=lambda row: -row[2]), ("all else", 1, total - inside)]
    cells = [(name, str(calls), milliseconds(seconds), f"{seconds / total:.1%}") for name, calls, seconds in rows]
    title = f"{work.key}: {work.title}, batch {work.batch}, one thread, {milliseconds(total)}; {kernels}"
    return f"{title}\n{table(('operation', 'calls', 'time', 'share'), cells)}"
