"""What reaches the terminal: notes on stderr, and on stdout the answer alone."""

import contextlib
import os
import sys
import warnings

from minild.errors import UserError
from minild.shown import shown


def note(message):
    """One line on stderr."""
    with contextlib.suppress(OSError):  # a stderr that takes nothing has no other place to say so
        print("minild:", shown(message), file=sys.stderr)


def answer(*lines):
    """Lines on stdout, at once. UserError where it cannot take them; BrokenPipeError where nobody reads it any more."""
    try:
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    except UnicodeEncodeError as error:
        shown = ascii(error.object[error.start : error.end])
        raise UserError(f"done, but stdout, in {error.encoding}, has no {shown}: set PYTHONIOENCODING=utf-8") from None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python, at its exit, writes the rest
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write to stdout: {error.strerror}") from None


@contextlib.contextmanager
def without_warnings():
    """Within it, NumPy does not warn of numbers too large: whoever finds pictures that are no numbers says what to do.

    A filter, and not numpy.errstate, which the threads that draw would not see.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def plural(count, noun):
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
