"""A work's model as an ONNX file, from PyTorch's module, for the libraries that read those."""

import logging
import warnings
from pathlib import Path

import torch

from .theirs import PyTorch, output
from .works import ONNX


class Module(torch.nn.Module):
    """A model of diffusers as a work runs it: tensors in, one tensor out."""

    def __init__(self, model, does):
        super().__init__()
        self.model, self.does = model, does

    def forward(self, *arrays):
        return output(self.model, self.does, *arrays)


class Exporter(PyTorch):
    """PyTorch's side, which writes its model."""

    def export(self, work, folder):
        """Write the model in `folder` there as ONNX, of the work's shapes and in float32."""
        self.open(work, folder)
        logging.disable(logging.WARNING)  # in this process: what it says of functions that nobody uses
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Module(self.model, work.does),
                tuple(self.given.values()),
                Path(folder) / ONNX,
                input_names=list(self.given),
                output_names=["output"],
                dynamo=True,
                external_data=True,
                verbose=False,
            )
