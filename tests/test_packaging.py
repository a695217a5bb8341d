"""A wheel carries the library and its data, and nothing else."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def files_below(folder):
    caches = ("__pycache__",)
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.parent.name not in caches}


def test_every_package_is_listed():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'"(minild[\w.]*)"', re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)[1]))
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "minild").rglob("__init__.py")}
    assert listed == found | {"minild._data"}


def test_the_lowest_versions_are_those_that_are_tried():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = {
        kind: dict(re.findall(r'"([\w-]+)>=([\d.]+)"', re.search(rf"^{kind} = \[(.*?)\]", text, re.M)[1]))
        for kind in ("dependencies", "bf16", "test")
    }
    del bounds["test"]["ruff"]  # reads the code, and does not run it
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tried == bounds["dependencies"] | bounds["bf16"] | bounds["test"] and len(tried) == 9


@pytest.mark.slow  # pip fetches the build tools
def test_a_wheel_holds_the_package_and_the_data(tmp_path):
    source = tmp_path / "source"  # a copy: setuptools takes up what an earlier build left in build/
    for name in ("minild", "data"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"minild/{path.as_posix()}" for path in files_below(ROOT / "minild")}
    expected |= {f"minild/_data/{path.as_posix()}" for path in files_below(ROOT / "data")}
    assert "minild/_data/emoji/sheet-0.png" in expected
    assert {name for name in names if ".dist-info/" not in name} == expected
