"""What the figures were measured on. No paths, no names of hosts or users."""

import platform
import re
from pathlib import Path

import minild
from minild.backend import core_count


def processor():
    """The processor's name where /proc/cpuinfo has one, else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1].strip() if found else platform.machine()


def facts():
    """{what: which}."""
    return {
        "processor": f"{processor()}, {core_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "minild": minild.__version__,
    }
