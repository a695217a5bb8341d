"""The house as the README draws it: imports run one way, the textbook holds mathematics alone, and rooms stay small."""

import ast
from pathlib import Path

import pytest

import minild

PACKAGE = Path(minild.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Each room, and the rooms that its files may import from. A room stands under those that it imports.
ROOMS = {
    "shown": [],
    "errors": ["shown"],
    "reading": ["errors"],
    "launch": ["errors"],
    "backend": ["errors"],
    "random": [],
    "durable": [],
    "locks": [],
    "ops": ["backend"],
    "engine": ["ops", "backend", "errors"],
    "nn": ["engine", "ops", "backend"],
    "differences": ["backend"],
    "gradient_hints": [],
    "gradcheck": ["differences", "gradient_hints", "backend"],
    "weights": ["reading", "errors"],
    "pretrained": ["weights", "reading", "durable", "backend", "errors"],
    "checkpoints": ["pretrained", "reading", "durable", "errors"],
    "byte_pairs": [],
    "tokenizer_files": ["pretrained", "reading", "errors"],
    "tokenizer": ["byte_pairs", "tokenizer_files", "pretrained", "reading", "errors"],
    "models": ["nn", "engine", "ops", "pretrained", "weights", "reading", "backend", "random", "errors"],
    "diffusion": ["engine", "ops", "backend", "random", "errors"],
    "data": ["reading", "shown", "errors"],
    "pipelines": [
        "models", "diffusion", "nn", "tokenizer", "tokenizer_files", "data", "checkpoints", "pretrained", "weights",
        "reading", "durable", "locks", "engine", "backend", "random", "shown", "errors",
    ],
    "evaluation": ["pipelines", "models", "ops", "data", "tokenizer", "pretrained", "reading", "backend", "errors"],
    "training": [
        "pipelines", "evaluation", "models", "diffusion", "nn", "tokenizer", "byte_pairs", "data", "checkpoints",
        "pretrained", "reading", "durable", "locks", "engine", "ops", "backend", "random", "shown", "launch", "errors",
    ],
    "course": [
        "gradcheck", "gradient_hints", "pipelines", "models", "diffusion", "nn", "engine", "ops", "data", "backend",
        "random", "errors", "__init__",
    ],
    "playground": ["pipelines", "data", "reading", "shown", "errors"],
    "cli": [
        "course", "training", "evaluation", "playground", "pipelines", "data", "engine", "launch", "reading", "shown",
        "errors", "__init__",
    ],
    "__init__": ["engine"],
    "__main__": ["cli"],
}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path):
    """The rooms that a file imports from, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "minild":
                room = name.split(".")[1] if "." in name else "__init__"
                yield room if room in ROOMS else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = room_of(path)
    assert set(imports_of(path)) - {room} <= set(ROOMS[room])


def test_no_two_rooms_import_each_other():
    def under(room, seen=()):
        assert room not in seen, f"a circle: {' -> '.join([*seen, room])}"
        for below in ROOMS[room]:
            if below != "__init__":
                under(below, (*seen, room))

    for room in ROOMS:
        under(room)


def test_a_file_is_one_thing():
    """350 lines hold one subject; and no file is called after what it is not."""
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
        assert path.stem not in ("utils", "helpers", "common", "misc"), path


def _opens_text(call):
    """Whether a call reads or writes text: open(...), Path.open(...) unless the mode says binary, read_text, ..."""
    if ast.unparse(call.func) == "read_text":  # minild.reading's, not Path's: always UTF-8
        return False
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    of_others = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("os", "Image", "webbrowser")
    modes = [value.value for value in call.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    binary = any("b" in mode and len(mode) <= 3 for mode in modes)
    return name in ("read_text", "write_text") or (name == "open" and not binary and not of_others)


def test_text_is_in_an_encoding_that_is_named_and_files_are_moved_as_on_every_system():
    """Windows has other defaults, and its rename does not go over a file that is there."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                if _opens_text(node):
                    assert "encoding" in [word.arg for word in node.keywords], f"{path}:{node.lineno}"
                assert ast.unparse(node.func) not in ("os.rename", "os.path.join"), f"{path}:{node.lineno}"


OPS = sorted((PACKAGE / "ops").glob("*.py"))


def test_the_textbook_is_a_book_that_can_be_read():
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in OPS) < 1200
    for path in OPS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                statements = node.body[1:] if ast.get_docstring(node) else node.body
                lines = statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0
                assert lines <= 25, f"{path.name}: {node.name} has {lines} lines"


MACHINERY = {"threading", "multiprocessing", "concurrent", "threadpoolctl", "ctypes", "cupy", "os"}


def test_the_textbook_holds_mathematics_alone():
    """No thread, no piece of work, no workspace, no kernel, and no `if` on a device."""
    for path in OPS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in modules} & MACHINERY, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                asks = node.func.id == "isinstance" and ast.unparse(node.args[1]) not in ("int", "Integral", "tuple")
                assert not asks and node.func.id != "device_of", f"{path.name}:{node.lineno}"
