"""The processes of one training, its ranks: each has the whole model and takes its rows of every batch.

All draw the same batch from the same generator. What they add up is the gradient, so that all take the same step. The
first rank alone reads saves, writes, and looks at the clock. Alone is the training in one process; MPI needs mpi4py,
and mpiexec to start it; with NCCL, what lies on a GPU goes from GPU to GPU.
"""

import socket

import numpy as np

from minild import launch
from minild.backend import device_of, get_array_module, to_device, to_host
from minild.engine.cores import own_cores, share_cores
from minild.errors import Terminated


class Alone:
    """The one rank of a training in one process: nothing goes anywhere. It says what the others do."""

    rank, size = 0, 1
    here = 1  # ranks on this machine

    @property
    def first(self):
        """Whether this is the rank that reads, writes and looks at the clock."""
        return self.rank == 0

    def rows(self, count):
        """The slice of a batch of `count` rows that is this rank's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, array):
        """Let `array`, on the host or the device, hold the sum of all ranks' arrays, in place."""

    def begin_sum(self, array, into):
        """Begin to write the sum of all ranks' host arrays into another -> what .Test() and .Wait() say of its end.

        All ranks begin their sums in the same order.
        """
        raise NotImplementedError("a rank alone has nobody to wait for")

    def broadcast(self, value):
        """-> the first rank's value, any object that can be pickled."""
        return value

    def wait(self):
        """Wait until all ranks have come here."""

    def joined(self, part, count):
        """part: this rank's rows() of an array of `count` rows -> the whole array, in every rank."""
        if self.size == 1:
            return part
        whole = get_array_module(part).zeros((count, *part.shape[1:]), part.dtype)
        whole[self.rows(count)] = part
        self.sum(whole)
        return whole

    def agree(self, asked):
        """asked: the exception that a signal asks this rank to raise, or None -> what all of them are to raise."""
        if self.size == 1:
            return asked
        each = np.array([asked is kind for kind in (Terminated, KeyboardInterrupt)], float)
        self.sum(each)
        return Terminated if each[0] else KeyboardInterrupt if each[1] else None


ALONE = Alone()


class MPI(Alone):
    """Ranks that talk by an mpi4py communicator. Arrays of a device are sent by way of the host."""

    def __init__(self, communicator):
        self.communicator, self.rank, self.size = communicator, communicator.Get_rank(), communicator.Get_size()

    def sum(self, array):
        """Let `array` hold the sum of all ranks' arrays, in place."""
        own = np.ascontiguousarray(to_host(array))
        total = np.empty_like(own)
        self.communicator.Allreduce(own, total)
        array[...] = to_device(total, device_of(array))

    def begin_sum(self, array, into):
        """Begin to write the sum of all ranks' host arrays into another -> the request."""
        return self.communicator.Iallreduce(array, into)

    def broadcast(self, value):
        """-> the first rank's value, any object that can be pickled."""
        return self.communicator.bcast(value)

    def wait(self):
        """Wait until all ranks have come here."""
        self.communicator.Barrier()

    def share_machine(self):
        """Share the cores of this machine among its ranks -> this rank's number among them.

        Where mpiexec has bound ranks to cores of their own, each keeps those.
        """
        mine = socket.gethostname(), own_cores()
        all_of_them = self.communicator.allgather(mine)
        beside = [rank for rank, (host, _) in enumerate(all_of_them) if host == mine[0]]
        self.here = len(beside)
        share_cores(sum(bool(mine[1] & all_of_them[rank][1]) for rank in beside))
        return beside.index(self.rank)


class NCCL(MPI):
    """As MPI, but arrays on a GPU are added up by NCCL, from GPU to GPU; the host does not wait for it.

    backend: a cupyx.distributed.NCCLBackend
    """

    def __init__(self, communicator, backend):
        super().__init__(communicator)
        self.backend = backend

    def sum(self, array):
        """Let `array` hold the sum of all ranks' arrays, in place."""
        if isinstance(array, np.ndarray):
            super().sum(array)
        else:
            self.backend.all_reduce(array, array)


def join(device):
    """The ranks that mpiexec started, ALONE where there is one; they share the machine's cores and GPUs.

    UserError where mpiexec started several that cannot talk.
    """
    if launch.place()[1] == 1:
        return ALONE
    ranks = MPI(launch.join())
    local = ranks.share_machine()
    if device != "cuda":
        return ranks
    import cupy
    from cupyx.distributed import NCCLBackend

    cupy.cuda.Device(local % cupy.cuda.runtime.getDeviceCount()).use()
    together = NCCL(ranks.communicator, NCCLBackend(ranks.size, ranks.rank, use_mpi=True))
    together.here = ranks.here
    return together
