"""metadata.jsonl, metadata.csv and metadata.parquet: what they may hold, and which row is told as broken."""

import csv
import sys
from pathlib import PurePath

import pytest

from minild.data.metadata import read_metadata
from minild.errors import UserError


def rows(folder, text, kind="jsonl", encoding="utf-8"):
    """(path below the folder, caption) of every row of a metadata file."""
    (folder / f"metadata.{kind}").write_bytes(text.encode(encoding))
    entries = read_metadata(folder, PurePath(f"metadata.{kind}"))
    return [(entry.path.relative_to(folder).as_posix(), entry.caption) for entry in entries]


def refusal(folder, text, kind="jsonl", encoding="utf-8"):
    with pytest.raises(UserError) as refused:
        rows(folder, text, kind, encoding)
    message = str(refused.value)
    assert message.startswith(str(folder / f"metadata.{kind}")) and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("sub/a.png", "sub/a.png"),
        ("sub\\a.png", "sub/a.png"),
        (".\\sub\\deep\\a.png", "sub/deep/a.png"),
        ("sub\\deep/a.png", "sub/deep/a.png"),
        ("sub//a.png", "sub/a.png"),
        ("sub/../a.png", "a.png"),
        ("sub\\..\\a.png", "a.png"),
        ("a b ü 猫.png", "a b ü 猫.png"),
        ("a:b.png", "a:b.png"),
    ],
)
def test_a_file_name_is_a_path_of_either_system(tmp_path, name, path):
    escaped = name.replace("\\", "\\\\")
    assert rows(tmp_path, f'{{"file_name": "{escaped}", "text": " a cat "}}') == [(path, "a cat")]
    assert rows(tmp_path, f"file_name,text\n{name},a cat\n", "csv") == [(path, "a cat")]


@pytest.mark.parametrize(
    "name",
    ["../a.png", "..", ".", "", "/a.png", "//host/a.png", "\\\\host\\a.png", "C:\\a.png", "c:/a.png", "..\\a.png",
     "a\0.png", "sub/../../a.png", "sub\\..\\..\\a.png", "file://a.png", "https://host/a.png"],
)  # fmt: skip
def test_no_other_path_is_followed(tmp_path, name):
    escaped = name.replace("\\", "\\\\").replace("\0", "\\u0000")
    told = refusal(tmp_path, f'{{"text": "ok", "file_name": "b.png"}}\n{{"file_name": "{escaped}", "text": "a cat"}}')
    assert "line 2: file_name" in told and "is not a path within the folder" in told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{not json", "is not JSON"),
        pytest.param("[" * 100_000, "is not JSON", id="too deep"),
        ('["a.png", "a cat"]', "expected {"),
        ('{"text": "a cat"}', "has no 'file_name': it has 'text'"),
        ('{"file_name": "a.png"}', "has no 'text': it has 'file_name'"),
        ('{"file_name": "a.png", "caption": "a"}', "it has 'file_name', 'caption'; rename the column of captions"),
        ("{}", "it has nothing"),
        ('{"file_name": "a.png", "text": "a cat", "text": "a dog"}', "a key appears twice in it"),
        ('{"file_name": "a.png", "text": ["a", "cat"]}', "'text' must be a text"),
        ('{"file_name": "a.png", "text": null}', "'text' must be a text, got a NoneType"),
        ('{"file_name": "a.png", "text": 7}', "'text' must be a text, got a int"),
        ('{"file_name": 3, "text": "a cat"}', "'file_name' must be a text"),
        ('{"file_name": "a.png", "text": " "}', "caption is empty"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "not valid text"),
        pytest.param('{"file_name": "a.png", "text": %s}' % ("[" * 40 + "]" * 40), "got a list", id="deep"),
        ('{"file_name": 1e999, "text": "a cat"}', "'file_name' must be a text, got a float"),
        pytest.param('{"file_name": %s, "text": "a cat"}' % ("9" * 5000), "line 2", id="huge number"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, told):
    message = refusal(tmp_path, '{"file_name": "a.png", "text": "a cat"}\n' + line)
    assert ", line 2" in message and told in message


def test_csv_as_spreadsheets_write_it(tmp_path):
    text = '\ufefffile_name,artist,text\r\n\r\na.png,me,"a ""red"", big\r\ncat"\r\nb.png,,ein Kätzchen\r\n'
    assert rows(tmp_path, text, "csv") == [("a.png", 'a "red", big\r\ncat'), ("b.png", "ein Kätzchen")]
    assert rows(tmp_path, "text,file_name\na cat,a.png", "csv") == [("a.png", "a cat")]
    assert rows(tmp_path, "file_name,text\n", "csv") == rows(tmp_path, "\n\n") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1 has no 'file_name': it has nothing"),
        ("file_name;text\na.png;a cat\n", "line 1 has no 'file_name': it has 'file_name;text'"),
        ("file,text\na.png,a cat\n", "it has 'file', 'text'"),
        ("file_name,caption\na.png,a cat\n", "no 'text': it has 'file_name', 'caption'"),
        ("file_name,text,text\na.png,a cat,a dog\n", "'text' more than once"),
        ("file_name,text\na.png,a red, big cat\n", "line 2 has 3 fields, and the first line names 2: put a caption"),
        ("file_name,text\na.png\n", "line 2 has no 'text'"),
        ("file_name,text\na.png,\n", "line 2: the caption is empty"),
        ("file_name,text\na.png,a cat\nb.png,NA\n", "line 3: the text 'NA' counts as missing"),
        ('file_name,text\na.png,"a cat\nb.png,a dog\n', "is not CSV: unexpected end of data"),
        ('file_name,text\na.png,"a cat" too\n', "line 2 is not CSV"),
        pytest.param(f"file_name,text\na.png,{'x' * (csv.field_size_limit() + 1)}\n", "is not CSV", id="long"),
    ],
)
def test_a_broken_line_of_csv_is_named(tmp_path, text, told):
    assert told in refusal(tmp_path, text, "csv")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_another_encoding_is_told(tmp_path, kind, encoding):
    assert "is not UTF-8: save it in that encoding" in refusal(tmp_path, "file_name,text\na.png,é\n", kind, encoding)


def test_parquet(tmp_path):
    arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))

    def write(**columns):
        parquet.write_table(arrow.table(columns), tmp_path / "metadata.parquet")
        entries = read_metadata(tmp_path, PurePath("metadata.parquet"))
        return [(entry.path.relative_to(tmp_path).as_posix(), entry.caption, entry.origin) for entry in entries]

    def write_refused(**columns):
        with pytest.raises(UserError) as refused:
            write(**columns)
        return str(refused.value)

    names, texts = ["a.png", "sub\\b.png"], arrow.array([" a cat", "ein Kätzchen"]).dictionary_encode()
    expected = [(path, caption, f"row {i} of metadata.parquet") for i, path, caption in
                ((1, "a.png", "a cat"), (2, "sub/b.png", "ein Kätzchen"))]
    assert write(file_name=names, image=[b"x", b"y"], text=texts) == expected
    assert write(image_file_name=names, text=texts) == expected
    assert "it has 'file_name', 'caption'" in write_refused(file_name=names, caption=texts)
    assert "row 2: 'text' must be a text, got a NoneType" in write_refused(file_name=names, text=["a", None])
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"metadata\.parquet is not parquet: "):
        read_metadata(tmp_path, PurePath("metadata.parquet"))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refusal(tmp_path, "PAR1", "parquet")


def test_rows_tell_where_they_stand(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
    (entry,) = read_metadata(tmp_path, PurePath("sub/metadata.csv"))
    assert entry == (tmp_path / "sub" / "a.png", "a cat", "line 2 of sub/metadata.csv")
