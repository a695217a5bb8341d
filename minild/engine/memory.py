"""Memory: large arrays are worked on in pieces that fit a core's cache, and what is needed only meanwhile is reused.

A piece of rows (P, C) is a slice. A piece of feature maps (N, H, W, C) is a pair (images, rows): a few whole pictures,
or some rows of one. Either indexes the arrays.
"""

import contextlib
import contextvars
import ctypes
import math
import sys
import threading

import numpy as np

from minild.backend import get_array_module

PIECE = 1 << 18  # elements worked on at a time: in float32 a megabyte, about what a core caches for itself
PIECE_ON_GPU = 1 << 27  # there only the memory is a limit

_thread = threading.local()  # .workspace: its arrays
_inference = contextvars.ContextVar("inference", default=False)


@contextlib.contextmanager
def inference():
    """Within it, nothing that is computed will be asked for its gradient: caches need not be kept."""
    token = _inference.set(True)
    try:
        yield
    finally:
        _inference.reset(token)


def in_inference():
    """Whether caches need not be kept here."""
    return _inference.get()


def row_pieces(count, size, like, least=1):
    """Slices that cover `count` rows of `size` elements: a piece each, but at least `least` rows."""
    step = max((PIECE if isinstance(like, np.ndarray) else PIECE_ON_GPU) // max(size, 1), least)
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def map_pieces(N, rows, columns, size, like, least=1):
    """(images, rows) slices that cover an N x rows map of `columns` pixels a row, each of `size` elements.

    A piece has at least `least` pixels, where the map has them.
    """
    image = rows * columns
    together = row_pieces(N, image * size, like, -(-least // image))
    if len(together) < N or image <= least:
        return [(images, slice(0, rows)) for images in together]
    pieces = row_pieces(rows, columns * size, like, -(-least // columns))
    return [(slice(n, n + 1), piece) for n in range(N) for piece in pieces]


def region(x, images, top, height, left, width):
    """x[images, top : top + height, left : left + width] with zeros where that is outside of the pictures.

    x (N, H, W, C) -> (n, height, width, C): a view, or in workspace and good until the next call.
    """
    H, W, C = x.shape[1:]
    first, last = max(top, 0), min(top + height, H)
    start, stop = max(left, 0), min(left + width, W)
    inside = x[images, first:last, start:stop]
    if inside.shape[1:3] == (height, width):
        return inside
    padded = workspace("region", (len(inside), height, width, C), x)
    padded.fill(0)
    padded[:, first - top : last - top, start - left : stop - left] = inside
    return padded


def windows(x, kernel, step, slot):
    """The windows of kH x kW pixels at every `step`-th pixel down and across: (N, Ho, Wo, kH, kW, C), in workspace.

    x (N, H, W, C). One copy, out of a view in which the windows overlap, along rows of kW · C numbers.
    """
    N, H, W, C = x.shape
    kH, kW = kernel
    step_n, step_h, step_w, step_c = x.strides
    overlapping = get_array_module(x).lib.stride_tricks.as_strided(
        x,
        (N, (H - kH) // step + 1, (W - kW) // step + 1, kH, kW, C),
        (step_n, step * step_h, step * step_w, step_h, step_w, step_c),
    )
    copy = workspace(slot, overlapping.shape, x)
    copy[...] = overlapping
    return copy


def workspace(slot, shape, like):
    """An uninitialised array of the shape, in the dtype and on the device of the array `like`.

    On the host it is the same memory at every call of this thread with the same `slot`, a string: for what lives within
    one operation on one piece of its work. To touch memory fresh from the kernel costs more than most arithmetic on it.
    """
    if not isinstance(like, np.ndarray):
        return get_array_module(like).empty(shape, like.dtype)
    arrays = vars(_thread).setdefault("workspace", {})
    size = math.prod(shape)
    if (slot, like.dtype) not in arrays or arrays[slot, like.dtype].size < size:
        arrays[slot, like.dtype] = np.empty(size, like.dtype)
    return arrays[slot, like.dtype][:size].reshape(shape)


def keep_freed_memory():
    """Let the allocator reuse large freed blocks instead of returning them to the kernel.

    A step of a training or of a sampler allocates the same arrays again and again. By default glibc maps and unmaps
    every block over 128 KB, and the page faults cost more than the arithmetic of an elementwise operation on it. Linux
    with glibc only; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_arena_max, 1)
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, 1 << 30)
