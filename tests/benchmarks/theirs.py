"""PyTorch's side: the models of diffusers, eager, on as many threads as there are cores."""

import os
import warnings

import numpy as np

from minild.data.pictures import to_signed
from minild.engine.cores import core_count
from minild.errors import UserError
from minild.training.autoencoder import SQUARED

from .side import Side
from .works import KL_WEIGHT, LEARNING_RATE, inputs

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


class PyTorch(Side):
    """Ways: the layout of feature maps in memory."""

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
        self.work = work
        self.model = getattr(diffusers, work.model).from_pretrained(folder).to(self.device)
        self.model.train(work.does == "train")
        given = inputs(work)
        if "pictures" in given:
            given["pictures"] = to_signed(given["pictures"])
        self.given = {name: self._tensor(array) for name, array in given.items()}
        if work.does == "train":
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        self.operations = None
        return list(FORMATS)

    def _tensor(self, array):
        """Images (N, H, W, C) as (N, C, H, W)."""
        array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def prepare(self, way):
        self.model.to(memory_format=FORMATS[way])
        for name, x in self.given.items():
            self.given[name] = x.contiguous(memory_format=FORMATS[way]) if x.ndim == 4 else x

    def _loss(self):
        given = self.given
        if self.work.model == "UNet2DConditionModel":
            return F.mse_loss(self._predict(), given["noise"])
        posterior = self.model.encode(given["pictures"]).latent_dist
        x = self.model.decode(posterior.mean + posterior.std * given["noise"]).sample
        nats = (posterior.mean**2 + posterior.logvar.exp() - 1 - posterior.logvar) / 2
        squared, absolute = F.mse_loss(x, given["pictures"]), F.l1_loss(x, given["pictures"])
        return absolute + SQUARED * squared + KL_WEIGHT * nats.mean()

    def _predict(self):
        return self.model(self.given["x"], self.given["t"], encoder_hidden_states=self.given["context"]).sample

    def _infer(self):
        with torch.inference_mode():
            return self._predict() if self.work.does == "predict" else self.model.decode(self.given["z"]).sample

    def run(self):
        if self.work.does != "train":
            return self._infer()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss().backward()
        return self.optimizer.step()

    def results(self):
        """As of every Side; counts the operations too."""
        with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
            if self.work.does == "train":
                self.optimizer.zero_grad(set_to_none=True)
                loss = self._loss()
                loss.backward()
                results = {name: p.grad.cpu().numpy() for name, p in self.model.named_parameters()}
                results["loss"] = np.float32(loss.item())
            else:
                results = {"output": self._infer().permute(0, 2, 3, 1).cpu().numpy()}
        self.operations = counter.get_total_flops()
        return results

    def operations_counted(self):
        """Floating-point operations of the products and convolutions of one run, as results() counted them."""
        return self.operations

    def synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def multiply(self, size):
        x = torch.randn(size, size, device=self.device)
        return lambda: x @ x

    def device_memory(self):
        return torch.cuda.max_memory_reserved() if self.device == "cuda" else None

    def facts(self):
        """What it is."""
        return {
            "PyTorch": f"{torch.__version__}, diffusers {diffusers.__version__}, {torch.get_num_threads()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}"
        }
