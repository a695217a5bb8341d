"""A table's cells: each is computed once and kept in a file, so that a table that was stopped goes on where it was."""

import datetime
import json
import sys
import time

from minild import pretrained

from .. import machine
from ..report import table


class Cells:
    """The cells of one table, in a folder of its own.

    folder  what is computed on the way: cells, and the models that they need
    """

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name, compute):
        """What compute() -> {name: figure} gave, now or earlier; it is written when it is whole."""
        path = self.folder / f"{name}.json"
        if path.is_file():
            return pretrained.read_json(path)
        print(f"tables: {name}", file=sys.stderr)
        began = time.monotonic()
        cell = compute()
        cell |= {"seconds_in_all": round(time.monotonic() - began, 1), "machine": machine.facts()["processor"]}
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(cell, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
        return cell


def publish(folder, name, command, columns, rows):
    """Write NAME.json and NAME.md: the rows, the command that made them, where and when.

    columns  {heading: format of a row's entry, such as "{f}" or "{psnr:.2f}"}
    rows     one dictionary a row
    """
    facts = machine.facts() | {"date": datetime.date.today().isoformat(), "command": command}
    del facts["load before"]
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"command": command, "made": facts, "rows": rows}
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    text = table(list(columns), [[form.format(**row) for form in columns.values()] for row in rows])
    where = "; ".join(facts[fact] for fact in ("processor", "system", "date"))
    (folder / f"{name}.md").write_text(f"{text}\n\n`{command}`; {where}; minild {facts['minild']}.\n", encoding="utf-8")
    return text
