"""python -m tests.fuzz READER --inputs N --seed S [--keep FOLDER]: N hostile inputs for a reader of minild.

    READER        a name of the list that --help shows; "all" for each of them
    --inputs N    how many in all: with --keep, those that an earlier run has read count
    --seed S      another seed, other inputs
    --keep FOLDER keep the figures there, after every thousand or so inputs, and go on from them next time
    --at I        only input I, with the whole traceback; its files stay, and are named
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .child import main as child
from .child import main_of_all, run
from .readers import READERS
from .run import fuzz, line, room


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(READERS, sys.argv[2:])
    if sys.argv[1:2] == ["--few"]:
        return main_of_all(READERS, sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("reader", choices=[*READERS, "all"], help="which reader")
    parser.add_argument("--inputs", type=int, default=10_000, metavar="N", help="how many inputs in all (10,000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the inputs (0)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the count there, and go on from it")
    parser.add_argument("--at", type=int, metavar="I", help="only this input, with its traceback")
    arguments = parser.parse_args()
    if arguments.at is not None:
        base = Path(tempfile.mkdtemp(prefix="minild-fuzz-", dir=room()))
        (base / "progress").touch()
        print(f"its files are in {base}/files", file=sys.stderr)
        reader, at = READERS[arguments.reader], arguments.at
        return print(json.dumps(run(reader, arguments.seed, at, at + 1, base, base / "progress", again=True)))
    crashed = False
    for name in READERS if arguments.reader == "all" else [arguments.reader]:
        figures = fuzz(READERS[name], arguments.inputs, arguments.seed, arguments.keep)
        for number, told in figures["crashes"][:20]:
            print(f"{name} --seed {arguments.seed} --at {number}: {told}", file=sys.stderr)
        print(line(name, figures), flush=True)
        crashed |= bool(figures["crashes"])
    return int(crashed)


if __name__ == "__main__":
    sys.exit(main())
