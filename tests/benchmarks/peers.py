"""Libraries that only infer, from an ONNX file of the same weights: float32, on as many threads as there are cores."""

import importlib.util
from pathlib import Path

import numpy as np

from minild.engine.cores import core_count

from . import machine
from .isa import TITLES
from .side import Side
from .works import ONNX, channels_first, inputs

PACKAGES = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}
EXPORT = ("onnx", "onnxscript")  # what PyTorch writes ONNX with


def left_out(name, isa, device):
    """Why this peer is not measured, in a few words; None where it is."""
    if device != "cpu":
        return "is measured on the CPU alone"
    missing = [package for package in (PACKAGES[name], *EXPORT) if importlib.util.find_spec(package) is None]
    if missing:
        return f"needs {', '.join(missing)}: pip install -e '.[peers]'"
    if name == "ONNX Runtime" and isa and isa != machine.instruction_set():
        return f"cannot be held to {TITLES[isa]}: it takes what the processor has"
    return None


class Peer(Side):
    """Reads the file in open() and runs it in the one way that there is."""

    def open(self, work, folder):
        self.given = {name: channels_first(array) for name, array in inputs(work).items()}
        self.load(str(Path(folder) / ONNX))
        return ["one"]

    def load(self, path):
        """Read the file and make ready."""
        raise NotImplementedError

    def prepare(self, way):
        """There is nothing to choose."""

    def results(self):
        return {"output": self.run().transpose(0, 2, 3, 1)}


class OpenVINO(Peer):
    """One request at a time, all threads for it. Without the hint it would compute in bfloat16 where it can."""

    def __init__(self, device):
        import openvino

        self.openvino, self.core = openvino, openvino.Core()
        self.core.set_property("CPU", {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": core_count(),
        })  # fmt: skip
        super().__init__(device)

    def load(self, path):
        self.request = self.core.compile_model(path, "CPU").create_infer_request()

    def run(self):
        return self.request.infer(self.given)[0]

    def kernels(self):
        """What the graph of a convolution says of oneDNN. OpenVINO itself says that it has Winograd with AVX-512."""
        ops = self.openvino.opset13
        x = ops.parameter([1, 16, 16, 16], np.float32)
        weight = ops.constant(np.ones((16, 16, 3, 3), np.float32))
        y = ops.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1])
        graph = self.core.compile_model(self.openvino.Model([y], [x], "model"), "CPU").get_runtime_model()
        said = [node.get_rt_info() for node in graph.get_ordered_ops()]
        chosen = [info["primitiveType"].value for info in said if info["layerType"].value == "Convolution"]
        kernels = {"OpenVINO's oneDNN": ", ".join(chosen)}
        if machine.instruction_set():
            wide = "WINOGRAD" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            kernels["OpenVINO"] = "AVX-512" if wide else "AVX2 or less"
        return kernels

    def facts(self):
        threads = self.core.get_property("CPU", "INFERENCE_NUM_THREADS")
        return {"OpenVINO": f"{self.openvino.__version__}, {threads} threads"}


class OnnxRuntime(Peer):
    """Its processor's own kernels, with every optimisation of the graph."""

    def __init__(self, device):
        import onnxruntime

        self.library = onnxruntime
        super().__init__(device)

    def load(self, path):
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = core_count(), 1
        self.session = self.library.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self):
        return self.session.run(None, self.given)[0]

    def kernels(self):
        """It names none: it asks the processor, and so do we."""
        return {"ONNX Runtime": f"the processor's, {machine.instruction_set()}"}

    def facts(self):
        return {"ONNX Runtime": f"{self.library.__version__}, {core_count()} threads"}
