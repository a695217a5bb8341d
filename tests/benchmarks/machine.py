"""What the figures were measured on. No paths, no names of hosts or users."""

import os
import platform
import re
from pathlib import Path

import minild
from minild.engine.cores import core_count

from .isa import AVX2, AVX512

CPUINFO = Path("/proc/cpuinfo")


def _told(what):
    """What the system says of the first processor; None where it does not."""
    try:
        text = CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{what}\s*:\s*(.+)$", text, re.M)
    return found[1].strip() if found else None


def processor():
    """The processor's name where the system tells it, else its architecture."""
    return _told("model name") or platform.machine()


def instruction_set():
    """The widest set of isa.TITLES that the processor has; None for another, or where the system does not tell."""
    flags = (_told("flags") or "").split()
    return next((isa for isa, flag in ((AVX512, "avx512f"), (AVX2, "avx2")) if flag in flags), None)


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


def identity():
    """{what: which}, the same every time."""
    return {
        "processor": f"{processor()}, {core_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "minild": minild.__version__,
    }


def facts():
    """The same, and how busy it is."""
    return identity() | {"load before": f"{load():.1f}"}
