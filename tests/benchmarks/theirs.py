"""PyTorch's side: the models of diffusers, eager, on as many threads as there are cores."""

import ctypes
import os
import tempfile
import warnings

from minild.data.pictures import to_signed
from minild.engine.cores import core_count
from minild.errors import UserError
from minild.training.autoencoder import SQUARED

from .isa import named_in
from .side import Side
from .works import KL_WEIGHT, LEARNING_RATE, channels_first, inputs

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is looked up anywhere
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import diffusers
        import torch
        import torch.nn.functional as F
        from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
    except ImportError:
        raise UserError("the benchmarks need PyTorch and diffusers: pip install -e '.[parity]'") from None

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
UNCOUNTED = {  # attention on the CPU, which the counter does not know
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda dy, q, k, v, *args, **kwargs: sdpa_backward_flop_count(dy, q, k, v),
}


def output(model, does, x, *more):
    """A model's output for a work's arrays without a gradient, in their order; a tensor."""
    return (model.decode(x) if does == "decode" else model(x, *more)).sample


class PyTorch(Side):
    """Ways: the layout of feature maps in memory; attention alone has none."""

    def __init__(self, device):
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("this PyTorch finds no GPU for --device cuda")
        torch.set_num_threads(core_count())
        # The two libraries round alike: in TensorFloat-32 both, or neither.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = os.environ.get("CUPY_TF32") == "1"
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        _ = diffusers.UNet2DConditionModel, diffusers.AutoencoderKL  # loaded when they are first named
        super().__init__(device)

    def open(self, work, folder):
        self.work, self.operations, given = work, None, inputs(work)
        if work.model is None:
            self.given = {name: self._tensor(array) for name, array in given.items()}
            return ["contiguous"]
        self.model = getattr(diffusers, work.model).from_pretrained(folder).to(self.device)
        self.model.train(work.does == "train")
        if "pictures" in given:
            given["pictures"] = to_signed(given["pictures"])
        self.given = {name: self._tensor(array) for name, array in given.items()}
        if work.does == "train":
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        return list(FORMATS)

    def _tensor(self, array):
        return torch.from_numpy(channels_first(array)).to(self.device)

    def prepare(self, way):
        if self.work.model is None:
            return
        self.model.to(memory_format=FORMATS[way])
        for name, x in self.given.items():
            self.given[name] = x.contiguous(memory_format=FORMATS[way]) if x.ndim == 4 else x

    def _loss(self):
        given = self.given
        if self.work.model == "UNet2DConditionModel":
            *arrays, noise = given.values()
            return F.mse_loss(output(self.model, "predict", *arrays), noise)
        posterior = self.model.encode(given["pictures"]).latent_dist
        x = self.model.decode(posterior.mean + posterior.std * given["noise"]).sample
        nats = (posterior.mean**2 + posterior.logvar.exp() - 1 - posterior.logvar) / 2
        squared, absolute = F.mse_loss(x, given["pictures"]), F.l1_loss(x, given["pictures"])
        return absolute + SQUARED * squared + KL_WEIGHT * nats.mean()

    def _infer(self):
        with torch.inference_mode():
            if self.work.does == "attend":
                return self._attend(*self.given.values())
            return output(self.model, self.work.does, *self.given.values())

    def _attend(self, *qkv):
        """(N, L, D) each -> (N, L, D)."""
        heads = [x.unflatten(2, (self.work.config["heads"], -1)).transpose(1, 2) for x in qkv]
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)

    def _differentiate(self):
        *qkv, dy = self.given.values()
        qkv = [x.requires_grad_() for x in qkv]
        y = self._attend(*qkv)
        return y, *torch.autograd.grad(y, qkv, dy)

    def run(self):
        if self.work.does == "differentiate":
            return self._differentiate()
        if self.work.does != "train":
            return self._infer()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss().backward()
        return self.optimizer.step()

    def results(self):
        """As of every Side; counts the operations too."""
        with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
            results = self._results()
        self.operations = counter.get_total_flops()
        return {name: x.detach().cpu().numpy() for name, x in results.items()}

    def _results(self):
        if self.work.does == "differentiate":
            return dict(zip(("output", "dq", "dk", "dv"), self._differentiate()))
        if self.work.does != "train":
            y = self._infer()
            return {"output": y.permute(0, 2, 3, 1) if y.ndim == 4 else y}
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.backward()
        return {"loss": loss} | {name: p.grad for name, p in self.model.named_parameters()}

    def operations_counted(self):
        """Those of the products and convolutions of one run, as results() counted them."""
        return self.operations

    def synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def multiply(self, size):
        x = torch.randn(size, size, device=self.device)
        return lambda: x @ x

    def device_memory(self):
        return torch.cuda.max_memory_reserved() if self.device == "cuda" else None

    def kernels(self):
        return {"PyTorch": torch.backends.cpu.get_cpu_capability()} | named_in(printed(_convolve_and_multiply))

    def facts(self):
        """What it is."""
        threads = f"{torch.get_num_threads()} threads"
        return {"PyTorch": f"{torch.__version__}, diffusers {diffusers.__version__}, {threads}"}


def printed(function):
    """What C libraries write to the standard output while the function runs."""
    with tempfile.TemporaryFile() as file:
        flush, kept = ctypes.CDLL(None).fflush, os.dup(1)
        flush(None)
        os.dup2(file.fileno(), 1)
        try:
            function()
        finally:
            flush(None)
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        return file.read().decode(errors="replace")


def _convolve_and_multiply():
    """Large enough for oneDNN and MKL, which then say, once in a process, what they compute with."""
    images, matrix = torch.ones(2, 32, 32, 32), torch.ones(64, 64)
    if torch.backends.mkldnn.is_available():
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            F.conv2d(images, torch.ones(32, 32, 3, 3))
    if torch.backends.mkl.is_available():
        with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
            matrix @ matrix
