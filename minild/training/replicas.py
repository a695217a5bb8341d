"""Data-parallel training on the cores of one machine: replicas of a model that share its parameters.

Each replica but the first lives in a forked process. The parameters and every replica's gradients are flat arrays in
memory that the processes share, so that a step hands a process no more than its part of the batch, and gets back its
losses. Threads compute side by side too, as NumPy lets go of Python's lock within an operation, but between operations
they wait for it: a step took a fifth longer. They stand in where forking is not safe, that is anywhere but on Linux. On
a GPU there is one replica: the device is parallel inside.
"""

import contextlib
import itertools
import multiprocessing
import signal
import sys
import warnings

from minild.backend import device_of
from minild.engine.cores import WorkerThreads, blas_threads, core_count
from minild.errors import UserError
from minild.training.optimizer import chunks, flatten_gradients


class Replicas:
    """with Replicas(model, work) as replicas: gradient, results = replicas.gradient(batch)

    work(module, part, share) runs forward and backward of one part of a batch on one replica, with gradients scaled by
    `share`, the part's share of the batch, so that the sum is the gradient of the batch's mean. What it returns must
    depend on nothing but its arguments, for it runs elsewhere: a process never sees what changes here after the fork.

    The replicas share the model's parameter arrays and own their gradients. Call with the model's parameters already
    flat (optimizer.flatten_parameters).
    """

    def __init__(self, model, work, count=None, processes=None):
        on_host = device_of(model.parameters()[0].data) == "cpu"
        self.work = work
        self.modules = [model.replica() for _ in range((count or core_count()) if on_host else 1)]
        self.gradients = [flatten_gradients(module) for module in self.modules]
        self.processes = _may_fork() if processes is None else processes

    def __enter__(self):
        self._helpers = []
        if self.processes:
            for i in range(1, len(self.modules)):
                self._helpers.append(_Helper(self._run, i, [helper.connection for helper in self._helpers]))
        self._pool = WorkerThreads(len(self.modules))
        return self

    def __exit__(self, *exception):
        self._pool.shutdown()
        for helper in self._helpers:
            helper.end()

    def map(self, function, items):
        """function(item) of every item, on threads, in order."""
        return list(self._pool.map(function, items))

    def gradient(self, batch):
        """Add up the gradients of the parts of a batch -> the flat sum, and the list of what `work` returned.

        batch: a tuple of arrays with one row an item.
        """
        size = len(batch[0])
        count = min(len(self.modules), size)
        edges = [size * i // count for i in range(count + 1)]
        parts = [(tuple(x[a:b] for x in batch), (b - a) / size) for a, b in itertools.pairwise(edges)]
        total = self.gradients[0]
        if count == 1:
            return total, [self._run(0, *parts[0])]
        with blas_threads(1):
            helpers = self._helpers[: count - 1]
            for helper, part in zip(helpers, parts[1:]):
                helper.ask(part)
            here = range(1 if helpers else count)
            results = self.map(lambda i: self._run(i, *parts[i]), here) + [helper.answer() for helper in helpers]

        def add(piece):
            for other in self.gradients[1:count]:
                total[piece] += other[piece]

        self.map(add, chunks(total))
        return total, results

    def _run(self, i, part, share):
        self.gradients[i].fill(0)
        return self.work(self.modules[i], part, share)


def _may_fork():
    return sys.platform == "linux" and not multiprocessing.current_process().daemon  # which may have no children


class _Helper:
    """A forked process that answers each question with run(i, *question)."""

    def __init__(self, run, i, inherited):
        """inherited: our ends of the other helpers' pipes, which it must not hold open: they end with us."""
        context = multiprocessing.get_context("fork")
        self.connection, its_end = context.Pipe()
        arguments = run, i, its_end, [*inherited, self.connection]
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        with warnings.catch_warnings():  # Python warns of locks that other threads may hold; it takes none of theirs
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        its_end.close()
        self.asked = 0

    def ask(self, question):
        self.asked += 1
        with contextlib.suppress(OSError):  # where there is no process any more, `answer` says so
            self.connection.send((self.asked, question))

    def answer(self):
        """The answer to the last question; one to an earlier question, from before an interrupt, is dropped."""
        number = 0
        while number < self.asked:
            try:
                number, value = self.connection.recv()
            except (EOFError, OSError):
                self.process.join(10)
                code = self.process.exitcode
                words = f"a process of the training ended with {code}: for want of memory, if that is -9"
                raise UserError(words) from None
        if isinstance(value, Exception):
            raise value
        return value

    def end(self):
        self.connection.close()  # which ends its loop
        self.process.join(10)
        self.process.terminate()


def _serve(run, i, connection, inherited):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too, but what is to be done then is said to us
    for other in inherited:
        other.close()
    with blas_threads(1), WorkerThreads(1) as thread, contextlib.suppress(EOFError, ConnectionError):
        while True:
            number, question = connection.recv()
            done = thread.submit(run, i, *question)
            connection.send((number, done.exception() or done.result()))
