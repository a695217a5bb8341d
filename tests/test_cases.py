"""The table of what people bring (cases/README.md) names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_that_the_table_names_is_there():
    table = (TESTS / "cases" / "README.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    named = set(re.findall(r"::(test_\w+)", table))
    assert len(named) > 80
    assert [name for name in sorted(named) if f"def {name}(" not in source] == []
    files = set(re.findall(r"[\w/]*test_\w+\.py", table))
    assert [file for file in sorted(files) if not (TESTS / file).is_file()] == []


def test_every_row_has_its_four_cells():
    for line in (TESTS / "cases" / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            assert len(re.split(r"(?<!\\)\|", line)) == 6, line
