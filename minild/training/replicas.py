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
from concurrent.futures import wait

from minild.backend import device_of, get_array_module
from minild.engine import current
from minild.engine.cores import WorkerThreads, blas_threads, core_count, on_all_cores
from minild.errors import UserError
from minild.training.early_sum import EarlySum
from minild.training.flat import flatten
from minild.training.optimizer import chunks
from minild.training.ranks import ALONE


class Replicas:
    """with Replicas(model, objective) as replicas: losses = replicas.gradient(batch)

    The first replica is the model itself, whose gradients a batch is added to. The others share its parameter arrays
    and own their gradients. The objective is one of loop.training_steps; its forward must depend on nothing but its
    arguments, for it runs elsewhere: a process never sees what changes here after the fork.

    Where other ops are in force (minild.using) than when the processes were forked, they are forked anew.

    ranks: the processes, here and on other machines, that share each batch (ranks.py). All get the sum of all, into
    gradients that were zero before. An objective whose rows depend on each other knows of them, objective.ranks, and
    then has one replica in each.
    """

    def __init__(self, model, objective, count=None, processes=None, ranks=ALONE):
        self.ranks = ranks
        if ranks.size > 1 and hasattr(objective, "ranks"):
            objective.ranks, count = ranks, 1
        on_host = device_of(model.parameters()[0].data) == "cpu"
        self.objective = objective
        self.weights = flatten(model, "data")
        self.modules = [model, *(model.replica() for _ in range(1, (count or core_count()) if on_host else 1))]
        self.gradients = [flatten(module, "grad") for module in self.modules]
        self.processes = _may_fork() if processes is None else processes
        early = ranks.size > 1 and on_host and len(self.modules) == 1
        self.early = EarlySum(flatten(model, "grad"), ranks) if early else None

    def __enter__(self):
        self._helpers, self._threads = [], WorkerThreads(len(self.modules))
        try:
            self._fork()
        except BaseException:  # Ctrl-C, say
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        self._threads.shutdown()
        self._end_helpers()

    def gradient(self, batch):
        """Forward and backward of a batch, a tuple of arrays with one row an item: adds the gradient of its mean loss
        into the model's -> {name: loss}, each the mean over the batch, on the device; "rows" are put together.
        """
        self.weights.gather()
        total = self.gradients[0].gather()
        size, mine = len(batch[0]), self.ranks.rows(len(batch[0]))
        count = min(len(self.modules), mine.stop - mine.start)
        edges = [mine.start + (mine.stop - mine.start) * i // count for i in range(count + 1)]
        parts = [(tuple(x[a:b] for x in batch), (b - a) / size) for a, b in itertools.pairwise(edges)]
        with self.early.watching() if self.early else contextlib.nullcontext():
            results = [self._run(0, *parts[0])] if count == 1 else self._side_by_side(parts)
        for gradient in self.gradients[1:count]:
            self._add(total, gradient.array)
        if self.early:
            self.early.finish()
        else:
            self.ranks.sum(total)
        rows = [losses.pop("rows") for losses in results if "rows" in losses]
        joined = {"rows": self._over_ranks(_joined(rows), size)} if rows else {}
        return self._summed({name: sum(losses[name] for losses in results) for name in results[0]}) | joined

    def _over_ranks(self, rows, size):
        return {name: self.ranks.joined(part, size) for name, part in rows.items()}

    def _summed(self, losses):
        """{name: loss} of this rank -> of all ranks."""
        if self.ranks.size == 1:
            return losses
        numbers = get_array_module(self.weights.array).zeros(len(losses), "float64")
        for i, name in enumerate(losses):
            numbers[i] = losses[name]
        self.ranks.sum(numbers)
        return {name: numbers[i] for i, name in enumerate(losses)}

    def _run(self, i, part, share):
        """Forward and backward of a part of a batch on replica i -> its share of the losses."""
        if i > 0:
            self.gradients[i].array.fill(0)
        losses, cache = self.objective.forward(self.modules[i], part)
        self.objective.backward(share, cache)
        return {name: loss if name == "rows" else share * loss for name, loss in losses.items()}

    def _side_by_side(self, parts):
        """The first part here and the others in processes, or all on threads -> what _run returns of each."""
        if current() != self._forked_with:
            self._fork()
        with blas_threads(1):
            helpers = self._helpers[: len(parts) - 1]
            for helper, part in zip(helpers, parts[1:]):
                helper.ask(part)
            here = parts[:1] if helpers else parts
            futures = [self._threads.submit(self._run, i, *part) for i, part in enumerate(here)]
            wait(futures)
            return [future.result() for future in futures] + [helper.answer() for helper in helpers]

    @staticmethod
    def _add(total, other):
        def add(chunk):
            total[chunk] += other[chunk]

        on_all_cores(add, chunks(total))

    def _fork(self):
        """A process for each replica but the first, in place of those there are."""
        self._end_helpers()
        self._forked_with = current()
        for i in range(1, len(self.modules) if self.processes else 1):
            self._helpers.append(_Helper(self._run, i, [helper.connection for helper in self._helpers]))

    def _end_helpers(self):
        while self._helpers:
            self._helpers.pop().end()


def _joined(parts):
    """[{name: rows}, ...] of a batch's parts, in order -> {name: the rows of the whole batch}."""
    return {name: get_array_module(x).concatenate([part[name] for part in parts]) for name, x in parts[0].items()}


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
        self.process.kill()


def _serve(run, i, connection, inherited):
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach it too, but what is to be done then is said to us
        signal.signal(number, signal.SIG_IGN)
    for other in inherited:
        other.close()
    with blas_threads(1), WorkerThreads(1) as thread, contextlib.suppress(EOFError, ConnectionError):
        while True:
            number, question = connection.recv()
            done = thread.submit(run, i, *question)
            connection.send((number, done.exception() or done.result()))
