"""Lists of prompts: a file with a line for each picture, read line by line, so that it may be of any length.

A line of a .jsonl is {"prompt": ..., more FIELDS}, one of a .txt is a prompt. A line that cannot be used costs no
other.
"""

import math
import re
import unicodedata
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

from minild.errors import UserError
from minild.pipelines.image_to_image import LARGEST_SIDE
from minild.pipelines.prompts import require_prompt
from minild.pipelines.request import require_texts
from minild.reading import parse_json

ENDINGS = (".jsonl", ".txt")
LONGEST_LINE = 1 << 16  # bytes
LONGEST_NAME = 200  # bytes of UTF-8: a file's name may have 255
NOT_IN_A_NAME = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')  # what a path or Windows gives a meaning
BYTE_ORDER_MARK, UTF_16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class Settings(NamedTuple):
    """What pictures have in common that are drawn together: arguments of Pipeline.text_to_image."""

    steps: int = 50
    guidance_scale: float | None = None
    sampler: str | None = None
    size: tuple | None = None
    clip_skip: int = 0
    guidance_rescale: float = 0.0


class Asked(NamedTuple):
    """The picture that a line asks for."""

    line: int  # its number, from 1
    name: str  # of the file, in the folder of all
    prompt: str
    negative_prompt: str
    seed: int
    settings: Settings


class Unusable(NamedTuple):
    """A line that asks for nothing that can be drawn."""

    line: int
    reason: str


class Defaults(NamedTuple):
    """What holds for a line that does not say otherwise. Line n has the seed `seed` + n - 1."""

    negative_prompt: str
    seed: int
    settings: Settings


def is_share(share):
    """Whether (rank, size) is a share: that of process number `rank`, from 0, of `size` that draw a list together."""
    rank, size = share
    return 0 <= rank < size


def read_list(prompts, defaults, share=(0, 1)):
    """Yield an Asked, or an Unusable, for each line of a share: those whose number, from 0, leaves `rank` by `size`.

    prompts: the path of a .jsonl or a .txt, or texts and dicts of FIELDS. Every process reads all lines, so that all
    agree which of two lines has a name. UserError for a file that cannot be read.
    """
    rank, size = share
    owners = {}
    for number, held in _held_lines(prompts):
        try:
            asked = _asked(number, _fields(held), defaults)
            # File systems may take capitals for small letters, and an accent written apart for one that is not.
            owner = owners.setdefault(unicodedata.normalize("NFC", asked.name).casefold(), number)
            if owner != number:
                raise UserError(f"line {owner} has the name {asked.name!r}, too: give each line its own")
        except UserError as error:
            asked = Unusable(number, str(error))
        if (number - 1) % size == rank:
            yield asked


def count_lines(prompts, share=(0, 1)):
    """How many lines of a file are of a share. UserError as read_list."""
    rank, size = share
    return sum((number - 1) % size == rank for number, _ in _held_lines(prompts))


def _held_lines(prompts):
    """Yield (number from 1, what it holds) of each line that is not blank: bytes of a .jsonl, else a text or a dict."""
    if not isinstance(prompts, (str, Path)):
        yield from enumerate(prompts, 1)
        return
    path = Path(prompts)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"prompts {path}: expected a file whose name ends in {' or '.join(ENDINGS)}")
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(_lines(file), 1):
                if number == 1 and line.startswith(UTF_16):
                    raise UserError(f"{path} is not UTF-8: save it in that encoding")
                line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if line.strip():
                    yield number, _Line(line, path.suffix.lower() == ".txt")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


class _Line(NamedTuple):
    text: bytes
    plain: bool  # a prompt, rather than JSON


def _lines(file):
    """Yield the lines of a binary file; of one that is too long its beginning, so that any file can be read."""
    while line := file.readline(LONGEST_LINE + 1):
        ended = line.endswith(b"\n")
        while not ended and (rest := file.readline(LONGEST_LINE)):
            ended = rest.endswith(b"\n")
        yield line.rstrip(b"\r\n")


def _fields(held):
    """The dict of what a line says."""
    if isinstance(held, dict):
        return held
    if isinstance(held, str):
        return {"prompt": held}
    if not isinstance(held, _Line):
        raise UserError(f"expected a text or a dict, got a {type(held).__name__}")
    if len(held.text) > LONGEST_LINE:
        raise UserError(f"it is longer than {LONGEST_LINE:,} bytes")
    try:
        text = held.text.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise UserError("it is not UTF-8: save the file in that encoding") from None
    if held.plain:
        return {"prompt": text}
    try:
        fields = parse_json(text, each_once=True)
    except ValueError as error:
        raise UserError(f"it is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f'expected {{"prompt": ...}}, got {text[:60]}')
    return fields


def _asked(number, fields, defaults):
    """The Asked of a line's fields, of which null says nothing."""
    for field in fields:
        if field not in FIELDS:
            raise UserError(f"unknown field {field!r}: use {', '.join(FIELDS)}")
    given = {field: FIELDS[field](field, value) for field, value in fields.items() if value is not None}
    if "prompt" not in given:
        raise UserError("it has no prompt: say what to draw")
    prompt, negative = given["prompt"], given.get("negative_prompt", defaults.negative_prompt)
    require_prompt(prompt, negative)
    settings = defaults.settings._replace(**{field: given[field] for field in Settings._fields if field in given})
    name, seed = given.get("name", f"{number:06}.png"), given.get("seed", defaults.seed + number - 1)
    return Asked(number, name, prompt, negative, seed, settings)


def _text(field, value):
    if not isinstance(value, str):
        raise UserError(f"{field} must be a text, got {value!r}")
    return value


def _whole(field, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise UserError(f"{field} must be a whole number from 0, got {value!r}")
    return int(value)


def _number(field, value):
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{field} must be a finite number, got {value!r}")
    return number


def _size(field, value):
    """(height, width) of a number, [height, width], or a text as on the command line."""
    sides = value if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, str):
        sides = [int(side) if side.isdecimal() else None for side in value.lower().split("x")]
    whole = all(isinstance(side, Integral) and not isinstance(side, bool) for side in sides)
    if len(sides) not in (1, 2) or not whole or not all(1 <= side <= LARGEST_SIDE for side in sides):
        expected = f"64 or [48, 64] (height, width, up to {LARGEST_SIDE})"
        raise UserError(f"{field} must be one such as {expected}, got {value!r}")
    return sides[0], sides[-1]


def _file_name(field, value):
    """The name of a picture's file, with .png at its end."""
    require_texts([name := _text(field, value).strip()])
    if not name or name.startswith(".") or NOT_IN_A_NAME.search(name) or len(name.encode()) > LONGEST_NAME:
        told = f"at most {LONGEST_NAME} bytes, without a dot at its beginning and without / \\ : * ? \" < > |"
        raise UserError(f"{field} {value[:60]!r} is no name of a file: {told}")
    return name if name.lower().endswith(".png") else f"{name}.png"


FIELDS = {  # what a line may say, and how it is read
    "prompt": _text,
    "negative_prompt": _text,
    "seed": _whole,
    "steps": _whole,
    "guidance_scale": _number,
    "sampler": _text,
    "size": _size,
    "clip_skip": _whole,
    "guidance_rescale": _number,
    "name": _file_name,
}
