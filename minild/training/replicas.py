"""Data-parallel training on the cores of one machine: replicas of a model on threads.

NumPy releases the interpreter lock inside a matrix product, an elementwise operation or a sum, so threads that each
carry their part of a batch through a replica of their own run truly side by side, in every phase of the step; BLAS is
then kept to one thread each. On a GPU there is one replica: the device is parallel inside.
"""

from minild.backend import blas_threads, core_count, device_of, worker_threads
from minild.training.optimizer import chunks, flatten_gradients

LEAST = 16  # pictures a replica: with fewer, threads wait for Python's lock longer than they compute side by side


class Replicas:
    """with Replicas(model) as replicas: gradient, results = replicas.gradient(work, batch)

    The replicas share the model's parameter arrays and own their gradients. Call with the model's parameters already
    flat (optimizer.flatten_parameters). A batch that gives no two replicas LEAST pictures goes through one of them
    whole, every large operation spread over the cores; `count` replicas share any batch.
    """

    def __init__(self, model, count=None):
        on_host = device_of(model.parameters()[0].data) == "cpu"
        self.modules = [model.replica() for _ in range((count or core_count()) if on_host else 1)]
        self.gradients = [flatten_gradients(module) for module in self.modules]
        self.least = 1 if count else LEAST

    def __enter__(self):
        self._pool = worker_threads(len(self.modules))
        return self

    def __exit__(self, *exception):
        self._pool.shutdown()

    def map(self, function, items):
        """function(item) of every item, on the threads, in order."""
        return list(self._pool.map(function, items))

    def gradient(self, work, batch):
        """Add up the gradients of `work` over the parts of a batch -> the flat sum, and the list of work's results.

        work(module, part, share) runs forward and backward of one part on one replica, with gradients scaled by
        `share`, the part's share of the batch, so that the sum is the gradient of the batch's mean. batch: a tuple of
        arrays with one row an item.
        """
        size = len(batch[0])
        parts = max(1, min(len(self.modules), size // self.least))
        edges = [size * i // parts for i in range(parts + 1)]

        def run(i):
            self.gradients[i].fill(0)
            rows = slice(edges[i], edges[i + 1])
            return work(self.modules[i], tuple(x[rows] for x in batch), (edges[i + 1] - edges[i]) / size)

        total = self.gradients[0]
        if parts == 1:
            return total, [run(0)]
        with blas_threads(1):
            results = self.map(run, range(parts))

        def add(piece):
            for other in self.gradients[1:parts]:
                total[piece] += other[piece]

        self.map(add, chunks(total))
        return total, results
