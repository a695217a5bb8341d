"""The form of the chapters: links that lead somewhere, figures with words and captions, exercises where they belong.

tests/test_chapters.py looks at what every notebook needs in order to run; these tests look at what its reader needs.
"""

import ast
import itertools
import json
import re
from pathlib import Path

import pytest

from minild.course.stubs import exercise_text
from minild.course.tasks import CHAPTERS, TASKS

FOLDER = Path(__file__).parents[1] / "chapters"
PAGES = list((FOLDER / "pages").iterdir())

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
NAME = re.compile(r"`([A-Za-z_]\w*)`")
CHECK = '# minild.course.check("{}", {})  # remove the # once your function is written'


def path_of(number):
    (path,) = FOLDER.glob(f"{number:02}_*.ipynb")
    return path


@pytest.fixture(params=CHAPTERS, ids=lambda number: f"chapter{number}")
def number(request):
    return request.param


@pytest.fixture
def cells(number):
    return json.loads(path_of(number).read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def prose(cells):
    """The text of the Markdown cells, without formulas: their brackets are no links."""
    text = "\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.DOTALL)


def anchors(path):
    """What may stand behind the # of a link to that file, as Jupyter, or of a Markdown file GitHub, makes it."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return {heading.strip().replace(" ", "-") for heading in headings(prose(cells))}
    found = headings(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def headings(text):
    return re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)


def broken_links(text, path):
    """Each (what is wrong, target) of the links of a text that stands in the file `path`."""
    broken = []
    for title, target in LINK.findall(text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists():
            broken.append(("no such file", target))
        elif anchor and anchor not in anchors(found):
            broken.append(("no such heading", target))
        elif found.suffix == ".py" and (name := NAME.fullmatch(title)) and not defines(found, name[1]):
            broken.append((f"{name[1]} is not defined there", target))
    return broken


def defines(path, name):
    return re.search(rf"^(def|class) {name}\b|^{name} = ", path.read_text(encoding="utf-8"), re.MULTILINE)


def pictures(cell):
    """The outputs of a cell that are pictures."""
    return [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


def test_links_lead_somewhere(number, cells):
    assert broken_links(prose(cells), path_of(number)) == []


@pytest.mark.parametrize(("text", "wrong"), [
    ("[a](05_autoencoder.ipynb)", []),
    ("[a](no_such.ipynb)", ["no such file"]),
    ("[a](../README.md#learn)", []),
    ("[a](../README.md#no-such)", ["no such heading"]),
    ("[a](05_autoencoder.ipynb#Sources)", []),
    ("[a](#No-such)", ["no such heading"]),
    ("[`group_norm`](../minild/ops/norm.py)", []),
    ("[`group_norms`](../minild/ops/norm.py)", ["group_norms is not defined there"]),
])  # fmt: skip
def test_a_broken_link_is_seen(text, wrong):
    assert [why for why, _ in broken_links(text, path_of(5))] == wrong


def test_every_paper_is_a_link(cells):
    text = prose(cells)
    assert len(re.findall(r"\d{4}\.\d{4,5}", LINK.sub("", text))) == 0
    linked = [target for _, target in LINK.findall(text) if "arxiv.org" in target]
    assert linked and all(re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", target) for target in linked)


def test_neighbours_can_be_reached_from_top_and_bottom(number, cells):
    for cell in (cells[0], cells[-1]):
        targets = [target for _, target in LINK.findall(source(cell))]
        for other in (number - 1, number + 1):
            if other in CHAPTERS:
                assert path_of(other).name in targets
        assert "../README.md#learn" in targets


def test_says_what_comes_before_and_helps_who_is_stuck(cells):
    text = prose(cells)
    assert "**Before this chapter**" in source(cells[0])
    assert 0 < text.find("\n## If you are stuck\n") < text.find("\n## Sources\n")


def test_figures_are_drawn_elsewhere(cells):
    drawing = [source(cell) for cell in cells if cell["cell_type"] == "code" and "plt" in source(cell)]
    assert drawing == []


def test_every_figure_has_words_and_a_numbered_caption(number, cells):
    place = itertools.count(1)
    for cell, after in itertools.pairwise(cells):
        if not (shown := pictures(cell)):
            continue
        (output,) = shown  # one figure a cell
        assert len(output["metadata"]["image/png"]["alt"]) > 60, source(cell)
        assert after["cell_type"] == "markdown", source(cell)
        assert re.match(rf"\*\*Figure {number}\.{next(place)}\.\*\* \S", source(after)), source(after)[:80]
    assert not pictures(cells[-1])


def test_figures_that_are_spoken_of_are_there(number, cells):
    text = prose(cells)
    numbered = set(re.findall(r"^\*\*Figure (\d\.\d+)\.\*\*", text, flags=re.MULTILINE))
    assert set(re.findall(r"[Ff]igure (\d\.\d+)", text)) <= numbered


def test_every_moving_figure_is_linked_once_just_before_its_still_one():
    linked = []
    for chapter in CHAPTERS:
        parts = re.split(r"\((pages/.*?)\)", prose(json.loads(path_of(chapter).read_text(encoding="utf-8"))["cells"]))
        for page, after in zip(parts[1::2], parts[2::2]):
            assert "in your browser" in after.split("\n")[0], page
            linked.append((page, re.search(r"^\*\*Figure (\d\.\d+)\.", after, flags=re.MULTILINE)[1]))
    belonging = re.compile(r"This page belongs to figure (\d\.\d+) of")
    pages = [(f"pages/{path.name}", belonging.search(path.read_text(encoding="utf-8"))[1]) for path in PAGES]
    assert sorted(linked) == sorted(pages) and pages


def test_every_exercise_stands_where_it_is_taught(number, cells):
    asked = {f.name: [a.arg for a in (*f.args.args, *f.args.kwonlyargs)] for f in functions(exercise_text(number))}
    ends = next(i for i, cell in enumerate(cells) if "\n## Exercises\n" in f"\n{source(cell)}")
    for task in (task for task in TASKS if task.chapter == number):
        heading = f"#### Exercise {task.number}\n"
        (at,) = [i for i, cell in enumerate(cells) if cell["cell_type"] == "markdown" and heading in source(cell)]
        told = source(cells[at]).split(heading)[1].split("#### Exercise")[0]
        assert re.search(r"\*\d+ minutes, difficulty (★☆☆|★★☆|★★★)\.\*", told), task.number
        assert 0 < at < ends
        stubs = {f.name: f for f in functions(source(cells[at + 1]))}
        mine = f"my_{task.function_name}"
        assert CHECK.format(task.number, mine) in source(cells[at + 1])
        arguments = stubs[mine].args
        assert [a.arg for a in (*arguments.args, *arguments.kwonlyargs)] == asked[task.function_name]
        assert f"(#Exercise-{task.number})" in source(cells[ends])


def functions(text):
    return [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
