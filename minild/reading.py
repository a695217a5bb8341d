"""Files from strangers: what every reader keeps to.

- Only a regular file is read, and only so much of it: no device that has no end, no pipe that nobody writes to. A link
  is followed, for the cache of the Hugging Face hub is made of links; nothing is ever written through one.
- A file that names another names one beside it: no path, no drive, no server.
- JSON has a bound in bytes and in depth.
- Nothing that is read is run: no pickle, anywhere (tests/test_strangers.py).
"""

import contextlib
import errno
import json
import os
import stat

from minild.errors import UserError

MAX_JSON = 1 << 22  # bytes: an index of the shards of a large model takes 0.2 MB
MAX_DEPTH = 50  # of what is nested in JSON: configs have three levels or four


def require_regular(path):
    """The os.stat_result of a regular file. OSError for what is none, or is not there."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return found


def read_bytes(path, most):
    """The bytes of a regular file. OSError where there is none, or it has more than `most`."""
    require_regular(path)
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def read_text(path, most):
    """The UTF-8 text of a regular file, line ends as \\n. OSError as read_bytes; ValueError for another encoding."""
    return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text, each_once=False):
    """The value of a JSON text. ValueError for what is none, or is nested deeper than MAX_DEPTH.

    each_once: an object that has a key twice is refused, too; else the last counts.
    """
    try:
        value = json.loads(text, object_pairs_hook=_each_once if each_once else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, (dict, list))]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _inside(value):
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _each_once(pairs):
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key appears twice in it")
    return fields


def is_file_name(name):
    """Whether a text is the name of a file beside the one that names it, on any system."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set('/\\:\0')


@contextlib.contextmanager
def usable(path):
    """What is read from `path` within, and makes no sense (a width that is a word, say), is the user's to mend."""
    try:
        yield
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise UserError(f"{path} cannot be used: {type(error).__name__}: {error}") from None
