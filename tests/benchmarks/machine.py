"""What the figures were measured on. No paths, no names of hosts or users."""

import os
import platform
import re
from pathlib import Path

import minild
from minild.engine.cores import core_count


def processor():
    """The processor's name where /proc/cpuinfo has one, else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1].strip() if found else platform.machine()


BUSY = 0.5  # processes that wait for the processor, on the average of the last minute


def load():
    """How many processes ran, or waited to, on the average of the last minute; 0 where it is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def warning():
    """A line where others use the processor, or come before us; None where it is ours alone.

    The libraries do not suffer equally: threads that wait for each other at every operation (OpenMP) are slowed by as
    much as a hundred times where one of the cores is taken, and the ratio is then of nothing but that.
    """
    priority = os.nice(0) if hasattr(os, "nice") else 0
    if load() > BUSY:
        return f"the machine is busy, {load():.1f} processes at once: times and ratios mean nothing until it is not"
    return f"this process gives way to others (nice {priority})" if priority > 0 else None


def facts():
    """{what: which}."""
    return {
        "processor": f"{processor()}, {core_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "minild": minild.__version__,
        "load before": f"{load():.1f}",
    }
