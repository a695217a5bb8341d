"""python -m tests.benchmarks.cli ISA DONE ...: `minild ...`, which writes to the file DONE when it was done.

ISA is the instruction set that its NumPy must have computed with, None for any. What is imported before the command
would count as its start, so there is next to nothing here.
"""

import sys
import time

from minild.cli import main

if __name__ == "__main__":
    isa, done, *arguments = sys.argv[1:]
    status = main(arguments)
    ended = time.time()
    if status:
        sys.exit(status)

    import json
    from pathlib import Path

    from minild.errors import UserError

    from .isa import numpy_kernels, require

    try:
        require(None if isa == "None" else isa, numpy_kernels())
    except UserError as error:
        sys.exit(str(error))
    Path(done).write_text(json.dumps({"time": ended}), encoding="utf-8")
