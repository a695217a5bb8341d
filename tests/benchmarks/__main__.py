"""python -m tests.benchmarks: minild beside PyTorch on the same weights, one table.

    --works W1,W3     these only
    --scaling         W1 over batches and W3 over sizes instead
    --profile W1      where minild's time goes in these works instead, operation by operation
    --json FILE       the figures there too
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from minild import pretrained
from minild.backend import get_device
from minild.errors import UserError

from . import machine, report, works


def parser():
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition("\n")[0])
    p.add_argument("--works", metavar="W1,W3", help="which works (all)")
    p.add_argument("--repeats", type=_positive, metavar="N", help="how often each library does each work")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (cpu)")
    p.add_argument("--way", choices=("parts", "whole"), help="how minild infers: parts of the batch on the cores "
                   "side by side, or the whole batch (the faster of the two)")
    p.add_argument("--scaling", action="store_true", help="W1 over batches and W3 over sizes")
    p.add_argument("--profile", metavar="W1", help="where minild's time goes in these works, on one thread")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    return p


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def main(arguments=None):
    """Exit status: 0 done, or no GPU to measure; 2 for a mistake."""
    given = parser().parse_args(arguments)
    try:
        if given.profile:
            _profile(works.chosen(given.profile))
        else:
            _compare(given)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def _require_writable(path):
    try:
        Path(path).touch()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _profile(chosen):
    from . import profile  # it loads all of minild, as a child that is measured must itself

    for work in chosen:
        print(report.profile(work, *profile.measure(work)))


def _compare(given):
    chosen = works.chosen(given.works)
    if given.scaling:
        chosen = works.scaled(chosen)
        if not chosen:
            raise UserError(f"--scaling is of {' and '.join(works.SCALES)}")
    if given.json:
        _require_writable(given.json)
    if given.device == "cuda":
        try:
            get_device("cuda")
        except UserError as error:
            print(f"nothing measured: {error}")
            return
    from . import timing

    warning = machine.warning()
    if warning:
        print(f"benchmarks: {warning}", file=sys.stderr)
    facts = machine.facts()  # now: what follows adds to the load
    peaks, libraries = timing.gemm_peaks(given.device)
    facts |= libraries
    print(report.heading(facts), flush=True)
    results = []
    figures = {"machine": facts, "gemm": peaks, "works": results}
    for work in tqdm(chosen, unit="work"):
        results.append(timing.compare(work, given.device, given.repeats, given.way))
        if given.json:  # after every work: the last take minutes
            pretrained.write_json(given.json, figures)
    for library, again in timing.gemm_peaks(given.device)[0].items():
        peaks[library] = max(peaks[library], again)  # it drifts over the minutes that the works took
    if given.json:
        pretrained.write_json(given.json, figures)
    print(report.peaks(peaks))
    print(report.table(report.HEADERS, [report.row(result, max(peaks.values())) for result in results]))
    print(report.footnote(results))


if __name__ == "__main__":
    sys.exit(main())
