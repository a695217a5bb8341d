"""The sum of a gradient over all ranks, begun while the backward that makes it still runs.

Backward ends with the first layers, so the gradients of the last are ready long before. The flat gradient is cut into
pieces, and each piece is on its way as soon as it is final. Nothing in a hand-written backward says that a gradient is
final: a layer that serves twice adds to its gradient twice. So the first step counts how often the gradients of each
piece change, and in the next a piece is final after as many changes. Should one change later than that, all ranks hear
of it: they add up the whole gradient again, and count anew.
"""

import contextlib

import numpy as np

PIECE = 1 << 20  # numbers at least, 4 MB: fewer, and the time that every message takes would count


class EarlySum:
    """with early.watching(): backward; then early.finish() has the sum in the flat gradient.

    flat: the flat.FlatArray of the gradient, on the host. MPI moves what is on its way only while it is called, here at
    every change of a gradient. size: of a piece, in numbers, in place of PIECE
    """

    def __init__(self, flat, ranks, size=None):
        self.flat, self.ranks, self.sums = flat, ranks, np.empty_like(flat.array)
        self.pieces, self.piece_of, start, end = [], {}, 0, 0
        for (_, parameter), view in zip(flat.parameters, flat.views):
            self.piece_of[id(parameter)], end = len(self.pieces), end + view.size
            if end - start >= (size or PIECE) or end == flat.array.size:
                self.pieces.append(slice(start, end))
                start = end
        self.plan = None  # [(piece, its changes in a backward)] in the order in which they were final

    @contextlib.contextmanager
    def watching(self):
        """Within it, begin the sum of each piece that is final."""
        self.changes, self.lasts, self.requests, self.late = [0] * len(self.pieces), {}, {}, False
        for _, parameter in self.flat.parameters:
            parameter.listener = self._note
        try:
            self._begin()
            yield
        finally:
            for _, parameter in self.flat.parameters:
                parameter.listener = None

    def _note(self, parameter):
        piece = self.piece_of[id(parameter)]
        self.changes[piece] += 1
        self.lasts[piece] = sum(self.changes)
        self.late |= piece in self.requests
        self._begin()
        for request in self.requests.values():
            request.Test()

    def _begin(self, final=False):
        """Begin the sums of those that are final, or of all that are left, in the order of the plan."""
        for piece, changes in (self.plan or [])[len(self.requests) :]:
            if self.changes[piece] < changes and not final:
                return
            where = self.pieces[piece]
            self.requests[piece] = self.ranks.begin_sum(self.flat.array[where], self.sums[where])

    def finish(self):
        """Wait until the flat gradient holds the sum."""
        self._begin(final=True)
        for request in self.requests.values():
            request.Wait()
        late = np.array([self.late], float)
        self.ranks.sum(late)
        if self.plan and not late[0]:
            self.flat.array[...] = self.sums
            return
        for where in self.pieces:
            self.ranks.sum(self.flat.array[where])
        order = sorted(range(len(self.pieces)), key=lambda piece: self.lasts.get(piece, 0))
        self.plan = self.ranks.broadcast([(piece, self.changes[piece]) for piece in order])
