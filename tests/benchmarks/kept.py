"""Figures that are kept: a file for each instruction set, and the README's tables of all of them."""

from pathlib import Path

from minild import pretrained
from minild.errors import UserError

from . import machine
from .isa import TITLES
from .peers import PACKAGES
from .report import found, memories, table
from .works import TRAINING, WORKS

FOLDER = Path(__file__).parent  # beside RESULTS.md
ORDER = [work.key for work in (*WORKS, TRAINING)]


def path(folder, isa):
    """The file of a set's figures."""
    return Path(folder) / f"speed-{isa}.json"


def begin(folder, figures):
    """Figures before anything was measured -> they with what was kept of the same machine and libraries.

    UserError where others are kept, or the file cannot be written.
    """
    file = path(folder, figures["isa"])
    before = pretrained.read_json(file) if file.is_file() else figures
    if any(before[what] != figures[what] for what in ("machine", "kernels")):
        raise UserError(f"{file} is of another machine or of other libraries: move it away, or name another folder")
    figures = before | {"load": max(before["load"], figures["load"]), "left out": figures["left out"]}
    write(folder, figures)
    return figures


def write(folder, figures):
    """Keep them. UserError where that cannot be."""
    file = path(folder, figures["isa"])
    try:
        pretrained.write_json(file, figures)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None


def add(figures, which, result):
    """The result takes the place of that of the same work in figures["works"] or figures["alone"], or its own."""
    others = [each for each in figures[which] if _what(each) != _what(result)]
    figures[which] = sorted([*others, result], key=lambda each: ORDER.index(each["work"]))


def _what(result):
    return [result.get(name) for name in ("work", "batch", "side")]


def raise_peaks(figures, rates):
    """The greater of each: a rate drifts over the minutes that the works take."""
    for library, rate in rates.items():
        figures["gemm"][library] = max(rate, figures["gemm"].get(library, 0.0))


def read(folder):
    """{isa: figures} of a folder, the widest set first. UserError for none."""
    files = {file.stem.removeprefix("speed-"): file for file in sorted(Path(folder).glob("speed-*.json"))}
    if not files:
        raise UserError(f"no figures are kept in {folder}: python -m tests.benchmarks --save")
    known = [isa for isa in TITLES if isa in files]
    return {isa: pretrained.read_json(files[isa]) for isa in (*known, *(isa for isa in files if isa not in known))}


def tables(kept):
    """The README's tables of {isa: figures}, as Markdown."""
    parts = [_heading(kept), _works(kept), _peers(kept), _alone(kept)]
    return "\n\n".join(part for part in parts if part)


def _heading(kept):
    lines = []
    for isa, figures in kept.items():
        kernels = ", ".join(f"{part} {said}" for part, said in figures["kernels"].items())
        rates = ", ".join(f"{library} {rate / 1e9:.0f}" for library, rate in figures["gemm"].items())
        lines.append(f"- **{_title(isa)}**: {figures['machine']['processor']}; {kernels}; GFLOP/s of a matrix product: "
                     f"{rates}")  # fmt: skip
        lines += [f"  - {peer} {reason}" for peer, reason in figures["left out"].items()]
        if figures["load"] > machine.BUSY:
            lines.append(f"  - **measured on a busy machine ({figures['load']:.1f}): not to be published**")
    return "\n".join(lines)


def _title(isa):
    return TITLES.get(isa, isa)


def _rows(kept, which, cells, first):
    """Lines of all works of a kind: their first cells, then those of each set, "-" where it has no such work."""
    lines = []
    for key in ORDER:
        results = [{each["work"]: each for each in figures[which]}.get(key) for figures in kept.values()]
        told = [each for each in results if each]
        columns = [cells(each) for each in results]
        if told and any(cell != "-" for column in columns for cell in column):
            lines.append((*first(told[0]), *(cell for column in columns for cell in column)))
    return lines


def _table(kept, headers, names, lines):
    return table((*headers, *(f"{name}, {_title(isa)}" for isa in kept for name in names)), lines) if lines else ""


def _seconds(summary):
    seconds = summary["median"]
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _ratio(seconds, other):
    return f"{seconds['minild']['median'] / seconds[other]['median']:.2f}"


def _works(kept):
    def cells(result):
        if result is None:
            return ("-",) * 4
        seconds = result["seconds"]
        times = _seconds(seconds["minild"]), _seconds(seconds["PyTorch"]), _ratio(seconds, "PyTorch")
        return *times, " / ".join(memories(result))

    def first(result):
        batch = "" if result["batch"] == 1 else f", batch {result['batch']}"
        return (f"{result['work']} {result['title']}{batch}",)

    names = ("minild", "PyTorch", "ratio", "memory at most")
    return _table(kept, ("Work",), names, _rows(kept, "works", cells, first))


def _peers(kept):
    def cells(result):
        pairs = [result["peers"].get(peer) if result else None for peer in PACKAGES]
        return tuple(f"{_seconds(pair['seconds'][peer])} ({_ratio(pair['seconds'], peer)})" if pair else "-"
                     for peer, pair in zip(PACKAGES, pairs))  # fmt: skip

    def first(result):
        return (f"{result['work']} {result['title']}, batch {result['batch']}",)

    return _table(kept, ("Work (and minild's ratio to it)",), tuple(PACKAGES), _rows(kept, "works", cells, first))


def _alone(kept):
    def cells(result):
        return (_seconds(result["seconds"]["minild"]) if result else "-", found(result) if result else "-")

    lines = _rows(kept, "alone", cells, lambda result: (f"{result['work']} {result['title']}",))
    return _table(kept, ("minild alone",), ("time", "what it gave"), lines)
