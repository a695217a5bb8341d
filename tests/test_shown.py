"""What a stranger's file says is shown as text, on the terminal, the page and a sheet, and leads nowhere."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import ImageFont

from minild.cli import evaluate
from minild.cli.terminal import note
from minild.errors import UserError
from minild.pipelines import sheet
from minild.pipelines.info import describe
from minild.playground import html
from minild.shown import shown

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202eabc\r\nnext\0 \ud800 " + "y" * (1 << 20)


def is_plain(text):
    return text.replace("\u200d", "").isprintable()


def test_what_is_shown_is_one_line_of_text():
    line = shown(HOSTILE)
    assert is_plain(line) and line.startswith("\\x1b[31mred\\x1b]0;title\\x07 \\u202eabc  next\\x00 \\ud800 yyy")
    assert len(line) <= 2000 and "(1,048,6" in line and line.endswith("yyy")
    assert shown("👩‍👧 नमस्ते café שלום") == "👩‍👧 नमस्ते café שלום"
    assert shown(shown(HOSTILE)) == line and len(shown("\x1b" * 5000, 300)) <= 300


def test_what_a_file_says_reaches_the_terminal_as_text(tmp_path, capsys):
    tiny_pipeline.make(record=tiny_pipeline.RECORD | {"dataset": HOSTILE}).save_pretrained(tmp_path)
    lines = describe(tmp_path)
    assert any("\\x1b[31mred" in line for line in lines)
    assert all(is_plain(line) and len(line) <= 10_000 for line in lines)
    assert is_plain(str(UserError(HOSTILE)))
    note(HOSTILE)
    assert is_plain(capsys.readouterr().err.rstrip("\n"))


def test_what_a_file_says_reaches_the_page_as_text():
    text = html.problem(UserError(f"<script>alert(1)</script>\"' {HOSTILE}"))
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text and len(text) < 5000
    image = html._image(np.zeros((2, 2, 3)), '"><script>\u202e')
    assert '"><script>' not in image and "\u202e" not in image


def test_a_caption_of_a_megabyte_is_cut_on_a_sheet():
    font = ImageFont.load_default(size=10)
    for text in (HOSTILE, "z" * (1 << 20), "a b " * (1 << 18), "\u0301" * (1 << 20)):
        lines = sheet._wrap(text, font, 96).split("\n")
        assert len(lines) <= sheet.LINES and all(font.getlength(line) <= 96 and is_plain(line) for line in lines)


class Recorded:
    def __init__(self, dataset):
        self.record = {"dataset": dataset}


@pytest.mark.parametrize("dataset", ["\\\\host\\share", "//host/share", "a\0b", 3, ["shapes"]])
def test_a_record_leads_to_no_other_computer(dataset):
    """Where Windows would tell it who asks."""
    with pytest.raises(UserError, match="give --dataset"):
        evaluate._recorded(Recorded(dataset), "them")


def test_a_folder_that_a_record_names_is_told(capsys):
    assert evaluate._recorded(Recorded("/home/me/pictures"), "them") == "/home/me/pictures"
    assert "the pictures in /home/me/pictures, the folder that them names" in capsys.readouterr().err
    assert evaluate._recorded(Recorded("shapes"), "them") == "shapes" and capsys.readouterr().err == ""
