"""One symbol, one meaning: the chapters define their symbols as chapters/GLOSSARY.md does, and leave none out."""

import functools
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "chapters"
GLOSSARY = (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8")
LISTING = [1, 2, 3, 4, 5, 6]  # the chapters that end with a list of their symbols

ROW = re.compile(r"^\| (?!Symbol|Term)([^|-].*?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
DEFINITION = re.compile(r"^- \*\*(.+?)\*\* = (.+)$", re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
WORDS = re.compile(r"\\(?:text|mathtt|operatorname)\{[^}]*\}|\\(?:begin|end)\{[^}]*\}")
GREEK = "alpha|beta|gamma|delta|epsilon|theta|mu|rho|sigma|tau|omega|eta|lambda|ell|phi|Phi"
LETTER = re.compile(rf"\\(?:{GREEK})(?![a-zA-Z])|\\mathcal\{{\w\}}|(?<![\\a-zA-Z])[a-zA-Z]")


def table(heading):
    """The rows of the table below a heading of the glossary."""
    return ROW.findall(GLOSSARY.split(f"\n## {heading}\n")[1].split("\n## ")[0])


SYMBOLS, TERMS = table("Symbols"), table("Terms")


@functools.cache
def chapter(number):
    """(text, list of symbols) of a chapter's Markdown cells."""
    (path,) = FOLDER.glob(f"{number:02}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    before, _, after = text.partition("\n## Symbols\n")
    symbols, _, rest = after.partition("\n## ")
    return before + rest, symbols


def formulas(text):
    return ["".join(pair) for pair in FORMULA.findall(text)]


def letters(formula):
    """The letters of a formula: without its words, its sizes and the names of LaTeX's commands."""
    bare = re.sub(rf"\\(?!(?:{GREEK})(?![a-zA-Z])|mathcal)[a-zA-Z]+", " ", WORDS.sub(" ", formula))
    return set(LETTER.findall(re.sub(r"(?<![a-zA-Z\\])d(?=[a-zA-Z])", " ", bare)))  # the d of a gradient


def test_every_symbol_and_every_term_stands_there_once():
    for rows in (SYMBOLS, TERMS):
        names = [name for cell, _, _ in rows for name in cell.split(", ")]
        assert len(rows) > 40 and [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize("number", LISTING)
def test_a_chapter_defines_its_symbols_as_the_glossary_does(number):
    _, listed = chapter(number)
    here = [(symbol, meaning) for symbol, meaning, chapters in SYMBOLS if str(number) in chapters.split(", ")]
    assert sorted(DEFINITION.findall(listed)) == sorted(here)


@pytest.mark.parametrize("number", LISTING)
def test_a_chapter_uses_each_symbol_that_it_lists(number):
    text, listed = chapter(number)
    used = "  ".join(formulas(text))
    alone = set().union(*map(letters, formulas(text)))
    for symbol in (name for cell, _ in DEFINITION.findall(listed) for name in re.findall(r"`\w+`|\$[^$]+\$", cell)):
        name = symbol[1:-1]
        if symbol.startswith("`"):  # a size: in a shape, or in a formula
            assert re.search(rf"`[^`\n]*\b{name}|\(.*\b{name}\b.*\)|\\mathtt{{{name}", text), symbol
        else:
            assert name in (alone if letters(name) == {name} else used), symbol


@pytest.mark.parametrize("number", LISTING)
def test_a_chapter_lists_every_letter_of_its_formulas(number):
    text, listed = chapter(number)
    counting = GLOSSARY.split("\nThe letters ")[1].split(" only count")[0]
    known = set().union(*map(letters, formulas(counting + listed)), {"e", "d"})
    unknown = {letter: formula for formula in formulas(text) for letter in letters(formula) - known}
    assert unknown == {}


def test_letters_of_a_formula():
    found = letters(r"dW_u = \sum_i \mathcal{D}(\text{out}) \sqrt{\mathtt{H}}\,\bar\alpha_t x_{i+u}")
    assert found == {"W", "u", "i", r"\mathcal{D}", r"\alpha", "t", "x"}


@pytest.mark.parametrize(("term", "meaning", "link"), TERMS, ids=[term for term, _, _ in TERMS])
def test_a_term_leads_to_a_chapter_that_uses_it(term, meaning, link):
    name, target = re.fullmatch(r"\[chapter (\d)\]\((\S+\.ipynb)\)", link).groups()
    assert target.startswith(f"{int(name):02}_") and (FOLDER / target).exists()
    text, _ = chapter(int(name))
    assert re.search(re.escape(term), text.replace("\n", " "), re.IGNORECASE)


def test_terms_are_in_order():
    names = [term.lower() for term, _, _ in TERMS]
    assert names == sorted(names)
