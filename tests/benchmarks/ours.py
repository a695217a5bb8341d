"""minild's side: training as minild.training does it, inference as minild.pipelines does."""

import contextlib

import numpy as np
from threadpoolctl import threadpool_info

from minild import models, pretrained
from minild.backend import get_device, to_device, to_host
from minild.engine import inference, run
from minild.engine.cores import WorkerThreads, blas_threads, core_count, side_by_side
from minild.engine.memory import keep_freed_memory
from minild.ops import attention, mse
from minild.training.autoencoder import AutoencoderObjective
from minild.training.optimizer import AdamW
from minild.training.replicas import Replicas

from .isa import numpy_kernels
from .side import Side
from .works import KL_WEIGHT, LEARNING_RATE, inputs

ALONE = "alone"  # on one thread: for a profile
BATCH_OF_AUTOENCODER, BATCH_OF_UNET = ("pictures", "noise"), ("x", "t", "context", "noise")


class Minild(Side):
    """Ways: "replicas" to train; "whole" or, on the CPU, in "parts" of the batch side by side to infer; ALONE."""

    def open(self, work, folder):
        self.work, self.stack, self.given = work, contextlib.ExitStack(), inputs(work)
        keep_freed_memory()
        if work.model is None:
            self.given = {name: to_device(x, self.device) for name, x in self.given.items()}
            return ["whole"]
        self.model = getattr(models, work.model).from_pretrained(folder, device=self.device)
        if work.does == "train":
            self.optimizer = AdamW(self.model)
            return ["replicas"]
        return ["parts", "whole"] if self.device == "cpu" and work.batch > 1 else ["whole"]

    def prepare(self, way):
        self.stack.close()
        if self.work.does == "train":
            is_autoencoder = self.work.model == "AutoencoderKL"
            objective = AutoencoderObjective(None, None, KL_WEIGHT) if is_autoencoder else NoiseObjective()
            self.batch = tuple(self.given[name] for name in (BATCH_OF_AUTOENCODER if is_autoencoder else BATCH_OF_UNET))
            self.replicas = self.stack.enter_context(Replicas(self.model, objective, 1 if way == ALONE else None))
            self.run = self._train
        elif self.work.model is None:
            self.run = self._attend if self.work.does == "attend" else self._differentiate
        elif way == "parts":
            self.run = self._parts(self.stack.enter_context(side_by_side()), core_count())
        else:
            self.run = self._parts(map, 1)
        if way == ALONE:
            self.stack.enter_context(blas_threads(1))
            thread, everything = self.stack.enter_context(WorkerThreads(1)), self.run
            self.run = lambda: thread.submit(everything).result()

    def _train(self):
        self.optimizer.zero_grad()
        self.replicas.gradient(self.batch)
        self.optimizer.step(LEARNING_RATE)

    def _attend(self):
        with inference():
            return [run(attention, *self.given.values(), self.work.config["heads"])[0]]

    def _differentiate(self):
        *qkv, dy = self.given.values()
        y, call = run(attention, *qkv, self.work.config["heads"])
        return y, *call.backward(dy)

    def _parts(self, workers, count):
        """-> function() that runs the model on `count` parts of the batch through a map() -> their outputs."""
        model = self.model.decode if self.work.does == "decode" else self.model
        arrays = [np.array_split(x, min(count, self.work.batch)) for x in self.given.values()]
        parts = [tuple(to_device(x, self.device) for x in part) for part in zip(*arrays)]
        return lambda: list(workers(lambda part: model(*part), parts))

    def results(self):
        if self.work.does == "differentiate":
            return {name: to_host(x) for name, x in zip(("output", "dq", "dk", "dv"), self.run())}
        if self.work.does != "train":
            return {"output": np.concatenate([to_host(y) for y in self.run()])}
        self.optimizer.zero_grad()
        losses = self.replicas.gradient(self.batch)
        return {"loss": np.float32(float(losses["loss"])), **pretrained.gradient_dict(self.model)}

    def synchronise(self):
        if self.device == "cuda":
            get_device("cuda").xp.cuda.Device().synchronize()

    def multiply(self, size):
        x = to_device(np.random.default_rng(1).standard_normal((size, size), dtype=np.float32), self.device)

        def product():
            with blas_threads(core_count()):
                return x @ x

        return product

    def device_memory(self):
        return get_device("cuda").xp.get_default_memory_pool().total_bytes() if self.device == "cuda" else None

    def kernels(self):
        return numpy_kernels()

    def facts(self):
        """What it stands on."""
        blas = [
            f"{library['internal_api']} {library['version']}, {library['num_threads']} threads"
            for library in threadpool_info()
            if library["user_api"] == "blas"
        ]
        return {"NumPy": f"{np.__version__}, {'; '.join(blas)}"} | self._gpu()

    def _gpu(self):
        if self.device != "cuda":
            return {}
        cupy = get_device("cuda").xp
        return {"CuPy": cupy.__version__, "GPU": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()}


class NoiseObjective:
    """The ε loss; z_t is given with the batch."""

    def forward(self, unet, batch):
        x, t, context, noise = (to_device(array, unet.device) for array in batch)
        predicted, cache = unet.forward(x, t, context)
        loss, mse_cache = run(mse, predicted, noise)
        return {"loss": loss}, (unet, cache, mse_cache)

    def backward(self, dloss, cache):
        unet, cache, mse_cache = cache
        unet.backward(mse_cache.backward(dloss)[0], cache)
