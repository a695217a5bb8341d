"""A wheel carries the library and its data, and nothing else. Slow, for pip fetches the build tools."""

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


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_the_data(tmp_path):
    source = tmp_path / "source"  # a copy: setuptools takes up what an earlier build left in build/
    for name in ("minild", "data"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
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
