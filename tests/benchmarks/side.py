"""What both libraries' sides have in common. A side lives in a process of its own (child.py)."""

import multiprocessing
import re
import time
from pathlib import Path

from .isa import require

TRIAL_SECONDS = 2.0  # for which a way is tried, twice at least


class Side:
    """One library with one work. A subclass opens the model, and goes about the work in the ways that it names."""

    def __init__(self, device):
        self.device = device
        self.imported = self.peak_memory()["resident"]

    def open(self, work, folder):
        """Open the model in `folder` -> the names of the ways in which this library can do the work."""
        raise NotImplementedError

    def prepare(self, way):
        """Go on in that way."""
        raise NotImplementedError

    def run(self):
        """Do the work once."""
        raise NotImplementedError

    def results(self):
        """{name: host array, images (N, H, W, C)}: the loss and every gradient where it trains, else the output."""
        raise NotImplementedError

    def operations_counted(self):
        """Floating-point operations of one run; None of a library that does not count them."""

    def synchronise(self):
        """Wait until the device has done what it was given."""

    def multiply(self, size):
        """-> function() that multiplies two float32 matrices of size x size on all cores, or on the device."""
        raise NotImplementedError

    def device_memory(self):
        """Bytes that this process took of the GPU's memory at most; None on the CPU."""

    def facts(self):
        """{what: which} of the libraries and how they are set."""
        raise NotImplementedError

    def kernels(self):
        """{part: what it says} of the instructions that the library's parts compute with, asked once."""
        raise NotImplementedError

    def held(self, isa):
        """kernels(). UserError where one is not of `isa`, unless that is None."""
        kernels = self.kernels()
        require(isa, kernels)
        return kernels

    def seconds(self, function=None):
        """How long one run takes."""
        start = time.perf_counter()
        (function or self.run)()
        self.synchronise()
        return time.perf_counter() - start

    def fastest(self, ways):
        """Try the ways -> the name of the fastest, which is now prepared."""
        took = {}
        for way in ways if len(ways) > 1 else ():
            self.prepare(way)
            self.seconds()
            runs = [self.seconds()]
            while sum(runs) < TRIAL_SECONDS:
                runs.append(self.seconds())
            took[way] = sorted(runs)[len(runs) // 2]
        way = min(took, key=took.get, default=ways[0])
        self.prepare(way)
        self.seconds()
        return way

    def gemm_peak(self):
        """float32 operations a second of a matrix product: 2048 x 2048 on the CPU, 8192 x 8192 on a GPU."""
        size = 2048 if self.device == "cpu" else 8192
        product = self.multiply(size)
        return 2 * size**3 / min(self.seconds(product) for _ in range(20))

    def peak_memory(self):
        """{"resident": VmHWM, "device": device_memory()} in bytes, None where it is not known.

        VmHWM is summed over this process and those that it forked; what they share is counted in each.
        """
        names = ["self", *(child.pid for child in multiprocessing.active_children())]
        files = [Path(f"/proc/{name}/status") for name in names]
        texts = [file.read_text(encoding="utf-8") for file in files if file.exists()]
        found = [re.search(r"^VmHWM:\s*(\d+) kB", text, re.M) for text in texts]
        return {"resident": sum(int(match[1]) * 1024 for match in found) or None, "device": self.device_memory()}

    def import_memory(self):
        """Bytes resident once the library was imported and nothing else done."""
        return self.imported
