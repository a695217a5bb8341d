"""The captions of a folder's pictures: read from metadata.jsonl, metadata.csv or metadata.parquet.

Each has a row for a picture, with the columns file_name, a path below the metadata file's own folder, and text. Other
columns are passed over.
"""

import csv
import itertools
import posixpath
import re
from pathlib import Path, PurePath
from typing import NamedTuple

from minild.errors import UserError
from minild.reading import parse_json, require_regular

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMNS = ("file_name", "image_file_name")
# What the reference, with pandas, takes for an empty field of a metadata.csv.
MISSING = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip


LONGEST_LINE = 1 << 20  # characters of a file's line
LONGEST_CAPTION = 5000  # characters: what a model reads of one is far less
MOST_ROWS = 1_000_000
ROWS_AT_ONCE = 1000  # of a parquet
MOST_UNPACKED = 1 << 32  # bytes of a parquet's columns


class Entry(NamedTuple):
    path: Path
    caption: str | None
    origin: str  # where the caption comes from, or should


def read_metadata(folder, name):
    """The rows of folder/name, a metadata file -> a list of Entry, in its order.

    name: a PurePath. UserError names the file and the row that is broken, and a parquet file where pyarrow is missing.
    """
    path = folder / name
    rows, entries = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[name.suffix], []
    try:
        require_regular(path)
        for row, fields in rows(path):
            if len(entries) == MOST_ROWS:
                raise UserError(f"{path} has more than {MOST_ROWS:,} rows")
            entries.append(_entry(path, fields, row, f"{row} of {name.as_posix()}"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return entries


def clean(text, place):
    """A caption without white space around it. UserError where nothing is left, or what is left is no Unicode or has
    more than LONGEST_CAPTION characters.
    """
    text = text.strip()
    if not text:
        raise UserError(f"{place}: the caption is empty: say what the picture shows")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place}: the caption is not valid text: {text!r}") from None
    if len(text) > LONGEST_CAPTION:
        raise UserError(f"{place}: the caption has {len(text):,} characters, and {LONGEST_CAPTION:,} is the most")
    return text


def _lines(file, path):
    """The lines of an open file. UserError for one that is longer than LONGEST_LINE."""
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise UserError(f"{path}, line {number} has more than {LONGEST_LINE:,} characters")
        yield line


def _json_rows(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(_lines(file, path), 1):
                if line.strip():
                    yield f"line {number}", _json_fields(line, f"{path}, line {number}")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it in that encoding") from None


def _json_fields(line, place):
    try:
        fields = parse_json(line, each_once=True)
    except ValueError as error:
        raise UserError(f"{place} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f'{place}: expected {{"file_name": ..., "text": ...}}, got {line.strip()[:60]}')
    return fields


def _csv_rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(_lines(file, path), strict=True)
            header = next(lines, [])
            _require_columns(header, f"{path}, line 1")
            for line in filter(None, lines):
                place = f"{path}, line {lines.line_num}"
                if len(line) > len(header):
                    told = f"{len(line)} fields, and the first line names {len(header)}"
                    raise UserError(f"{place} has {told}: put a caption with a comma in quotes")
                fields = dict(zip(header, line))
                if fields.get("text") in MISSING - {""}:
                    raise UserError(f"{place}: the text {fields['text']!r} counts as missing: write a caption")
                yield f"line {lines.line_num}", fields
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it in that encoding") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num} is not CSV: {error}") from None


def _parquet_rows(path):
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: parquet needs pyarrow: pip install pyarrow, or save it as metadata.jsonl") from None
    try:
        with ParquetFile(path) as table:
            _require_columns(table.schema_arrow.names, path)
            columns = [name for name in table.schema_arrow.names if name in (*FILE_COLUMNS, "text")]
            groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > MOST_UNPACKED:
                raise UserError(f"{path} unpacks to more than {MOST_UNPACKED:,} bytes")
            number = 0
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    yield f"row {number}", fields
    except (ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is not parquet: {' '.join(str(error).split())}") from None


def _require_columns(names, place):
    """UserError names the columns there are, where those that are wanted are not among them, or twice."""
    there = ", ".join(map(repr, names)) or "nothing"
    if not set(names) & set(FILE_COLUMNS):
        raise UserError(f"{place} has no 'file_name': it has {there}; rename the column of the pictures' paths to that")
    if "text" not in names:
        raise UserError(f"{place} has no 'text': it has {there}; rename the column of captions to that")
    for name in (*FILE_COLUMNS, "text"):
        if list(names).count(name) > 1:
            raise UserError(f"{place} has {name!r} more than once")


def _entry(path, fields, row, origin):
    place = f"{path}, {row}"
    _require_columns(fields, place)
    file_column = next(name for name in FILE_COLUMNS if name in fields)
    for column in (file_column, "text"):
        if not isinstance(fields[column], str):
            raise UserError(f"{place}: {column!r} must be a text, got a {type(fields[column]).__name__}")
    given = fields[file_column]
    name = posixpath.normpath(given.replace("\\", "/"))  # the backslashes of Windows
    outside = name in (".", "..") or name.startswith("../") or PurePath(name).anchor or re.match("[A-Za-z]:/", name)
    if outside or "://" in given or "\0" in given:
        raise UserError(f"{place}: {file_column} {given!r} is not a path within the folder")
    return Entry(path.parent / name, clean(fields["text"], place), origin)
