"""Two-dimensional convolution, channels last.

Strictly a cross-correlation, as everywhere in deep learning:
y[n, i, j] = Σ_(a, b) x[n, s·i + a - p, s·j + b - p] @ weight[a, b] for stride s and padding p.

Three algorithms give that sum. A 1 x 1 kernel is one matrix product. Any kernel is one matrix product over unfolded
patches (im2col), a piece of the picture at a time. And a 3 x 3 kernel at stride 1, the most common by far, takes a
quarter of the multiplications in `ops/winograd.py`, at a few times the rounding; on a GPU by `ops/kernels/winograd.py`.
"""

import contextlib
import math
import os
from typing import Any, NamedTuple

import numpy as np

from minild.backend import get_array_module, in_inference, on_all_cores
from minild.ops import kernels, winograd
from minild.ops.bands import band, bands, windows
from minild.ops.kernels import winograd as winograd_kernels
from minild.ops.reduce import sum_rows
from minild.ops.validate import require_like, require_rank, require_shape

LEAST_ROWS = 256  # of the patches multiplied at once: with fewer, reading the weights takes longer than the product


KEPT = 1 << 22  # elements of Winograd's values that a call may keep for its backward, in place of x


class Conv2dCache(NamedTuple):
    x: Any  # unfolded again in backward: keeping the patches would take kH·kW times the memory. None where values are
    weight: Any
    stride: int
    margins: Any
    has_bias: bool
    values: Any  # Winograd's transform of x, of twice its size, where that is not much


_exact = False


@contextlib.contextmanager
def exact():
    """Within it, no convolution of the process uses Winograd's algorithm: for checks to the last digits."""
    global _exact
    before, _exact = _exact, True
    try:
        yield
    finally:
        _exact = before


def algorithm(x, weight, stride, margins):
    """The algorithm that conv2d and its backward use for such arrays: "product", "patches" or "winograd".

    On a GPU with CUPY_TF32=1 in the environment patches are multiplied, for their product then has tensor cores.
    """
    if weight.shape[:2] == (1, 1) and stride == 1 and not np.any(margins):
        return "product"
    if _exact or stride != 1 or x.dtype != np.float32:
        return "patches"
    if not isinstance(x, np.ndarray) and (not kernels.serve(x) or os.environ.get("CUPY_TF32") == "1"):
        return "patches"
    return "winograd" if winograd.pays(x.shape, weight.shape, margins) else "patches"


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """y = x ⋆ weight + bias.

    x (N, H, W, Cin), weight (kH, kW, Cin, Cout), bias (Cout,) or None -> y (N, Ho, Wo, Cout) with
    Ho = (H + top + bottom - kH) // stride + 1. `padding` is a number of pixels all round or
    ((top, bottom), (left, right)). Raises ValueError for a shape or dtype that does not fit.
    """
    require_rank("x", x, 4, "(N, H, W, C)")
    require_shape("weight", weight, (None, None, x.shape[3], None))
    require_like("weight", weight, "x", x)
    margins = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    kH, kW = weight.shape[:2]
    if x.shape[1] + sum(margins[0]) < kH or x.shape[2] + sum(margins[1]) < kW:
        raise ValueError(f"x: expected at least the kernel's {kH} x {kW} pixels after padding, got shape {x.shape}")
    if bias is not None:
        require_shape("bias", bias, (weight.shape[3],))
        require_like("bias", bias, "x", x)
    values = None
    if algorithm(x, weight, stride, margins) == "winograd" and not in_inference() and not kernels.serve(x):
        shape = winograd.values_shape(x.shape, margins)
        values = np.empty(shape, x.dtype) if math.prod(shape) <= KEPT else None
    y = _correlate(x, weight, bias, stride, margins, values)
    return y, Conv2dCache(x if values is None else None, weight, stride, margins, bias is not None, values)


def conv2d_backward(dy, cache):
    """dy (N, Ho, Wo, Cout) -> dx, dweight, dbias (None without a bias).

    dweight: each tap (a, b) correlates dy with the input pixel that it saw.
    dx: each input pixel collects dy from every output that it reached, by the tap that reached it. At stride 1 that is
    a convolution again, of dy with the kernel turned by 180° and its channels exchanged; the kernel "rotates"
    because the tap that looked down and right is looked back at from up and left.
    """
    x, weight, stride, margins, has_bias, values = cache
    if values is not None:
        dweight = winograd.weight_gradient(x, dy, margins, values)
    else:
        dweight = _weight_gradient(x, weight, dy, stride, margins)
    dbias = sum_rows(dy.reshape(-1, dy.shape[3])) if has_bias else None
    if stride != 1:
        return _fold_input_gradient(x, weight, dy, stride, margins), dweight, dbias
    kH, kW = weight.shape[:2]
    (top, bottom), (left, right) = margins
    rotated = weight[::-1, ::-1].transpose(0, 1, 3, 2)
    back = (kH - 1 - top, kH - 1 - bottom), (kW - 1 - left, kW - 1 - right)
    return _correlate(dy, rotated, None, 1, back), dweight, dbias


def _correlate(x, weight, bias, stride, margins, values=None):
    N, H, W, Cin = x.shape
    kH, kW, _, Cout = weight.shape
    chosen = algorithm(x, weight, stride, margins)
    if chosen == "product":
        y = (x.reshape(-1, Cin) @ weight.reshape(Cin, Cout)).reshape(N, H, W, Cout)
        if bias is not None:
            y += bias
        return y
    Ho, Wo = ((size + sum(m) - k) // stride + 1 for size, m, k in zip((H, W), margins, (kH, kW)))
    y = get_array_module(x).empty((N, Ho, Wo, Cout), x.dtype)
    if chosen == "winograd":
        if kernels.serve(x):
            winograd_kernels.correlate(x, weight, bias, margins, y)
        else:
            winograd.correlate(x, weight, bias, margins, y, values)
        return y
    matrix = weight.reshape(-1, Cout)

    def multiply(piece):
        images, rows = piece
        columns = _unfold(x, piece, weight, stride, margins, Wo)
        part = columns.reshape(-1, kH * kW * Cin) @ matrix
        if bias is not None:
            part += bias
        y[images, rows] = part.reshape(*columns.shape[:3], Cout)

    on_all_cores(multiply, bands(N, Ho, Wo, kH * kW * Cin, x, LEAST_ROWS))
    return y


def _unfold(x, piece, weight, stride, margins, Wo):
    """The patches (images, rows, Wo, kH, kW, C) under the kernel at a piece of the output, in workspace."""
    kH, kW = weight.shape[:2]
    images, rows = piece
    (top, _), (left, _) = margins
    height, width = (rows.stop - rows.start - 1) * stride + kH, (Wo - 1) * stride + kW
    return im2col(band(x, images, rows.start * stride - top, height, -left, width), (kH, kW), stride)


def im2col(padded, kernel, stride):
    """Unfold: (N, H, W, C) -> (N, Ho, Wo, kH, kW, C), the patch under the kernel at every output pixel.

    In workspace: good until the next call.
    """
    return windows(padded, kernel, stride, "columns")


def col2im(columns, padded_shape, stride):
    """Fold: the transpose of im2col. Every pixel sums what the patches that held it say of it."""
    Ho, Wo, kH, kW = columns.shape[1:5]
    padded = get_array_module(columns).zeros(padded_shape, columns.dtype)
    for a in range(kH):
        for b in range(kW):
            padded[:, a : a + stride * Ho : stride, b : b + stride * Wo : stride] += columns[:, :, :, a, b]
    return padded


def _weight_gradient(x, weight, dy, stride, margins):
    kH, kW, Cin, Cout = weight.shape
    chosen = algorithm(x, weight, stride, margins)
    if chosen == "product":
        return (x.reshape(-1, Cin).T @ dy.reshape(-1, Cout)).reshape(weight.shape)
    if chosen == "winograd":
        return (winograd_kernels if kernels.serve(x) else winograd).weight_gradient(x, dy, margins)
    N, Ho, Wo, _ = dy.shape
    dweight = get_array_module(x).zeros((kH * kW * Cin, Cout), x.dtype)
    for piece in bands(N, Ho, Wo, kH * kW * Cin, x, LEAST_ROWS):
        columns = _unfold(x, piece, weight, stride, margins, Wo)
        dweight += columns.reshape(-1, kH * kW * Cin).T @ dy[piece].reshape(-1, Cout)
    return dweight.reshape(weight.shape)


def _fold_input_gradient(x, weight, dy, stride, margins):
    N, H, W, Cin = x.shape
    kH, kW, _, Cout = weight.shape
    (top, bottom), (left, right) = margins
    dcolumns = (dy.reshape(-1, Cout) @ weight.reshape(-1, Cout).T).reshape(*dy.shape[:3], kH, kW, Cin)
    dpadded = col2im(dcolumns, (N, top + H + bottom, left + W + right, Cin), stride)
    return dpadded[:, top : top + H, left : left + W]
