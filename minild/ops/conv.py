"""Two-dimensional convolution, channels last.

Strictly a cross-correlation, as everywhere in deep learning:
y[n, i, j] = Σ_(a, b) x[n, s·i + a - top, s·j + b - left] @ weight[a, b] for stride s, with zeros around the picture.

Unfolded (im2col), all of these sums are one matrix product: a row for each output pixel, holding the patch of the
picture that lies under the kernel there, times the kernel as one column for each output channel.
"""

from numbers import Integral
from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.validate import require_like, require_rank, require_shape


class Conv2dCache(NamedTuple):
    x: Any  # unfolded again in backward: keeping the patches would take kH·kW times the memory
    weight: Any
    has_bias: bool
    stride: int
    margins: Any


def require_conv2d(x, weight, bias=None, stride=1, padding=0):
    """ValueError unless the arguments of `conv2d` fit each other."""
    require_rank("x", x, 4, "(N, H, W, C)")
    require_shape("weight", weight, (None, None, x.shape[3], None))
    require_like("weight", weight, "x", x)
    kH, kW = weight.shape[:2]
    rows, columns = margins_of(padding)
    if min(*rows, *columns) < 0:
        raise ValueError(f"padding: expected numbers from 0, got {padding}")
    if not isinstance(stride, Integral) or stride < 1:
        raise ValueError(f"stride: expected a whole number from 1, got {stride}")
    if x.shape[1] + sum(rows) < kH or x.shape[2] + sum(columns) < kW:
        raise ValueError(f"x: expected at least the kernel's {kH} x {kW} pixels after padding, got shape {x.shape}")
    if bias is not None:
        require_shape("bias", bias, (weight.shape[3],))
        require_like("bias", bias, "x", x)


def margins_of(padding):
    """((top, bottom), (left, right)) of a `padding`, which may be one number for all four."""
    return ((padding, padding), (padding, padding)) if isinstance(padding, Integral) else padding


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """y = x ⋆ weight + bias.

    x (N, H, W, Cin), weight (kH, kW, Cin, Cout), bias (Cout,) or None -> y (N, Ho, Wo, Cout) with
    Ho = (H + top + bottom - kH) // stride + 1. `padding` is a number of pixels all round or
    ((top, bottom), (left, right)). Raises ValueError for a shape or dtype that does not fit.
    """
    require_conv2d(x, weight, bias, stride, padding)
    margins = margins_of(padding)
    columns = im2col(pad(x, margins), weight.shape[:2], stride)  # N,Ho,Wo,kH,kW,Cin
    y = as_matrix(columns, weight) @ weight.reshape(-1, weight.shape[3])
    if bias is not None:
        y = y + bias
    return y.reshape(*columns.shape[:3], weight.shape[3]), Conv2dCache(x, weight, bias is not None, stride, margins)


def conv2d_backward(dy, cache):
    """dy (N, Ho, Wo, Cout) -> dx, dweight, dbias (None without a bias).

    The three gradients of a linear layer whose rows are the patches. A pixel lay in several patches, and
    adds up the gradients from all of them (col2im); what falls on the margins is dropped.
    """
    x, weight, has_bias, stride, margins = cache
    padded = pad(x, margins)
    columns = im2col(padded, weight.shape[:2], stride)  # N,Ho,Wo,kH,kW,Cin
    drows = dy.reshape(-1, weight.shape[3])
    dweight = (as_matrix(columns, weight).T @ drows).reshape(weight.shape)
    dbias = drows.sum(axis=0) if has_bias else None
    dcolumns = (drows @ weight.reshape(-1, weight.shape[3]).T).reshape(columns.shape)
    dpadded = col2im(dcolumns, padded.shape, stride)
    (top, _), (left, _) = margins
    dx = dpadded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return dx, dweight, dbias


def pad(x, margins):
    """x (N, H, W, C) with rows and columns of zeros around it: (N, top + H + bottom, left + W + right, C)."""
    return get_array_module(x).pad(x, ((0, 0), *margins, (0, 0)))


def as_matrix(columns, weight):
    """The patches (N, Ho, Wo, kH, kW, Cin) as rows: (N·Ho·Wo, kH·kW·Cin)."""
    kH, kW, Cin, _ = weight.shape
    return columns.reshape(-1, kH * kW * Cin)


def im2col(padded, kernel, stride):
    """Unfold: (N, H, W, C) -> (N, Ho, Wo, kH, kW, C), the patch under the kernel at every output pixel."""
    N, H, W, C = padded.shape
    kH, kW = kernel
    Ho, Wo = (H - kH) // stride + 1, (W - kW) // stride + 1
    columns = get_array_module(padded).empty((N, Ho, Wo, kH, kW, C), padded.dtype)
    for a in range(kH):
        for b in range(kW):
            columns[:, :, :, a, b] = padded[:, a : a + stride * Ho : stride, b : b + stride * Wo : stride]
    return columns


def col2im(columns, padded_shape, stride):
    """Fold: the transpose of im2col. Every pixel adds up what the patches hold in its places."""
    Ho, Wo, kH, kW = columns.shape[1:5]
    padded = get_array_module(columns).zeros(padded_shape, columns.dtype)
    for a in range(kH):
        for b in range(kW):
            padded[:, a : a + stride * Ho : stride, b : b + stride * Wo : stride] += columns[:, :, :, a, b]
    return padded
