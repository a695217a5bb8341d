"""python -m tests.benchmarks: minild beside PyTorch, OpenVINO and ONNX Runtime on the same weights, and alone.

    --works W1,W3         these only; "all" is also W9, the training, which takes minutes
    --isa avx512,avx2     with these instruction sets, one after the other, all libraries alike; what each library
                          chooses by itself where none is named
    --scaling             W1 over batches and W3 over sizes instead
    --profile W1          where minild's time goes in these works instead, operation by operation
    --save [FOLDER]       keep the figures as FOLDER/speed-ISA.json (beside RESULTS.md), with those of other works
    --tables [FOLDER]     measure nothing: the README's tables of the figures that are kept
"""

import argparse
import sys

from tqdm import tqdm

from minild.backend import get_device
from minild.errors import UserError

from . import alone, isa, kept, machine, peers, report, timing, works


def parser():
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition("\n")[0])
    p.add_argument("--works", metavar="W1,W3", help="which works (all but W9); all is every one")
    p.add_argument("--repeats", type=_positive, metavar="N", help="how often each library does each work")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (cpu)")
    p.add_argument("--isa", metavar="avx512,avx2", help="hold all libraries to these instruction sets, in turn")
    p.add_argument("--way", choices=("parts", "whole"), help="how minild infers: parts of the batch on the cores "
                   "side by side, or the whole batch (the faster of the two)")
    p.add_argument("--scaling", action="store_true", help="W1 over batches and W3 over sizes")
    p.add_argument("--profile", metavar="W1", help="where minild's time goes in these works, on one thread")
    p.add_argument("--save", nargs="?", const=kept.FOLDER, metavar="FOLDER", help="keep the figures as JSON")
    p.add_argument("--tables", nargs="?", const=kept.FOLDER, metavar="FOLDER", help="the README's tables of those")
    return p


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def main(arguments=None):
    """Exit status: 0 done, or no GPU to measure; 2 for a mistake."""
    given = parser().parse_args(arguments)
    try:
        if given.tables:
            print(kept.tables(kept.read(given.tables)))
            return 0
        sets = _sets(given)
        chosen = _chosen(given)
        if given.device == "cuda":
            try:
                get_device("cuda")
            except UserError as error:
                print(f"nothing measured: {error}")
                return 0
        if warning := machine.warning():
            print(f"benchmarks: {warning}", file=sys.stderr)
        load = machine.load()  # now: what follows adds to it
        for name in sets:
            where = timing.Where(given.device, name)
            _profile(chosen, where) if given.profile else _compare(chosen, where, load, given)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def _sets(given):
    """The instruction sets to measure with, [None] for what the libraries choose."""
    sets = given.isa.split(",") if given.isa else [None]
    for name in sets if given.isa else ():
        if name not in isa.TITLES:
            raise UserError(f"unknown instruction set {name!r}: use {' or '.join(isa.TITLES)}")
        if given.device != "cpu":
            raise UserError("--isa is of --device cpu")
    return sets


def _chosen(given):
    chosen = works.chosen(given.profile or given.works)
    if given.profile and any(isinstance(work, works.Command) for work in chosen):
        raise UserError("--profile is of works, not of whole commands")
    if given.scaling:
        if given.save:
            raise UserError("--save keeps no --scaling")
        chosen = works.scaled(chosen)
        if not chosen:
            raise UserError(f"--scaling is of {' and '.join(works.SCALES)}")
    return chosen


def _profile(chosen, where):
    for work in chosen:
        with timing.start("profiler", where) as child:
            name = isa.told(where.isa, child.call("held", where.isa))
            print(report.profile(work, *child.call("profile", work), name))


def _compare(chosen, where, load, given):
    left_out = {peer: reason for peer in peers.PACKAGES if (reason := peers.left_out(peer, where.isa, where.device))}
    asked = [peer for peer in peers.PACKAGES if peer not in left_out]
    for peer, reason in left_out.items():
        print(f"benchmarks: {peer} {reason}", file=sys.stderr)
    facts, kernels = timing.survey(where, asked)
    name = "cuda" if where.device == "cuda" else where.isa or isa.agreed(kernels)
    figures = {"isa": name, "machine": machine.identity() | facts, "kernels": kernels, "load": load, "gemm": {},
               "left out": left_out, "works": [], "alone": []}  # fmt: skip
    if given.save:
        figures = kept.begin(given.save, figures)
    print(report.heading(figures["machine"] | {"load before": f"{load:.1f}"}), flush=True)
    kept.raise_peaks(figures, timing.gemm_peaks(where))
    for work in tqdm(chosen, unit="work"):
        if isinstance(work, works.Command):
            kept.add(figures, "alone", alone.measure(work, where, given.repeats))
        else:
            kept.add(figures, "works", timing.compare(work, where, given.repeats, given.way, asked))
        if given.save:  # after every work: the last take minutes
            kept.write(given.save, figures)
    kept.raise_peaks(figures, timing.gemm_peaks(where))  # it drifts over the minutes that the works took
    if given.save:
        kept.write(given.save, figures)
    print(report.tables(figures))


if __name__ == "__main__":
    sys.exit(main())
