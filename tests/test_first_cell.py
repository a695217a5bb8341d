"""The first cell of the chapters: what is not as it should be is told in one line, and what to do."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "chapters"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture
def environment():
    spec = importlib.util.spec_from_file_location("environment", FOLDER / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_says_what_is_there(environment, monkeypatch, capsys):
    monkeypatch.setattr(environment, "NEEDED", {"numpy": "numpy"})
    environment.check()
    assert re.fullmatch(r"Ready: minild [\d.]+, NumPy [\d.]+, \d+ cores, .*\.\n", capsys.readouterr().out)


def test_says_what_is_missing(environment, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", {"numpy": "numpy", "no_such_a": "a", "no_such_b": "b"})
    with pytest.raises(environment.NotReady, match=r"^not installed in this kernel: a, b\. Run pip install") as caught:
        environment.check()
    assert caught.value._render_traceback_() == [str(caught.value)]


def test_says_that_numpy_is_too_old(environment, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", {"numpy": "numpy"})
    monkeypatch.setattr(np, "__version__", "1.26.4")
    told = r"^NumPy 1\.26\.4 is too old: .* Run pip install \"numpy>=2\.0\", and restart the kernel$"
    with pytest.raises(environment.NotReady, match=told) as caught:
        environment.check()
    assert caught.value._render_traceback_() == [str(caught.value)]


def test_a_newer_numpy_will_do(environment, monkeypatch, capsys):
    monkeypatch.setattr(environment, "NEEDED", {"numpy": "numpy"})
    monkeypatch.setattr(np, "__version__", "10.0.0rc1")
    environment.check()
    assert "NumPy 10.0.0rc1" in capsys.readouterr().out


def test_asks_for_what_the_project_depends_on(environment):
    text = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    depends = json.loads(re.search(r"^dependencies = (\[.*\])$", text, flags=re.MULTILINE)[1])
    assert f"numpy>={environment.NUMPY}" in depends
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in depends}
    assert set(environment.NEEDED.values()) == names | {"minild", "matplotlib"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_says_in_which_folder_the_notebook_belongs(path, monkeypatch, tmp_path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder and Path(folder) != FOLDER])
    monkeypatch.delitem(sys.modules, "environment", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        exec(first, {})
    (line,) = caught.value._render_traceback_()
    assert "has to run in minild's folder `chapters`" in line and "\n" not in line


ASKED_BY_A_CELL = "1 + 1\nprint(dy + 1)"
ASKED_BY_A_FUNCTION = "def my_function(x):\n    return x + dy\n\n\nmy_function(1)"


@pytest.mark.parametrize(("cell", "shown"), [
    (ASKED_BY_A_CELL, r"line 4: the name 'dy' is not defined\. An earlier cell makes it, or .* Run All Above .*\n"),
    (ASKED_BY_A_FUNCTION, r"(?s)-+\nNameError .*in my_function\(x\).*NameError: name 'dy' is not defined\n"),
], ids=["a cell", "a function"])  # fmt: skip
def test_a_cell_run_out_of_order_says_what_to_do(cell, shown, tmp_path):
    for module in ("IPython", "matplotlib"):
        pytest.importorskip(module)
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c"]
    done = subprocess.run(
        [*command, f"import environment\nenvironment.check()\n{cell}"], capture_output=True, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path]), "IPYTHONDIR": str(tmp_path)},
    )  # fmt: skip
    ready, _, rest = done.stdout.partition("\n")
    assert ready.startswith("Ready: ") and re.fullmatch(shown, rest), done.stdout + done.stderr
