"""One training at a time in a folder."""

import contextlib
from pathlib import Path

from minild.checkpoints import FOLDER
from minild.errors import UserError
from minild.locks import lock

LOCK = "lock"  # the file


@contextlib.contextmanager
def only_training(output, folder=None):
    """with only_training(output): while it lasts, no other training gets here. UserError where one has, and where there
    can be no lock in `folder`, DIR/training if none is named, which is made.
    """
    folder = Path(output) / FOLDER if folder is None else folder
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            alone = stack.enter_context(lock(folder / LOCK))
        except OSError as error:
            raise UserError(f"cannot write to {output}: {error.strerror}") from None
        if not alone:
            words = "wait until it ends, or name another folder"
            raise UserError(f"another training is at work in {output}: {words}")
        yield
