"""Two-dimensional convolution, channels last, as one matrix product over unfolded patches.

Strictly a cross-correlation, as everywhere in deep learning:
y[n, i, j] = Σ_(a, b) x[n, s·i + a - p, s·j + b - p] @ weight[a, b] for stride s and padding p.
"""

from typing import Any, NamedTuple

from minild.backend import get_array_module
from minild.ops.validate import require_like, require_rank, require_shape


class Conv2dCache(NamedTuple):
    x: Any  # unfolded again in backward: keeping the patches would take kH·kW times the memory
    weight: Any
    stride: int
    padding: Any
    has_bias: bool


def _margins(padding):
    """padding as ((top, bottom), (left, right))."""
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def pad_image(x, margins):
    """x (N, H, W, C) with zeros around it."""
    (top, bottom), (left, right) = margins
    if not (top or bottom or left or right):
        return x
    N, H, W, C = x.shape
    padded = get_array_module(x).zeros((N, top + H + bottom, left + W + right, C), x.dtype)
    padded[:, top : top + H, left : left + W] = x
    return padded


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
    """Fold: the transpose of im2col. Every pixel sums what the patches that held it say of it."""
    Ho, Wo, kH, kW = columns.shape[1:5]
    padded = get_array_module(columns).zeros(padded_shape, columns.dtype)
    for a in range(kH):
        for b in range(kW):
            padded[:, a : a + stride * Ho : stride, b : b + stride * Wo : stride] += columns[:, :, :, a, b]
    return padded


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """y = x ⋆ weight + bias.

    x (N, H, W, Cin), weight (kH, kW, Cin, Cout), bias (Cout,) or None -> y (N, Ho, Wo, Cout) with
    Ho = (H + top + bottom - kH) // stride + 1. `padding` is a number of pixels all round or
    ((top, bottom), (left, right)). Raises ValueError for a shape or dtype that does not fit.
    """
    require_rank("x", x, 4, "(N, H, W, C)")
    require_shape("weight", weight, (None, None, x.shape[3], None))
    require_like("weight", weight, "x", x)
    kH, kW, Cin, Cout = weight.shape
    margins = _margins(padding)
    if x.shape[1] + sum(margins[0]) < kH or x.shape[2] + sum(margins[1]) < kW:
        raise ValueError(f"x: expected at least the kernel's {kH} x {kW} pixels after padding, got shape {x.shape}")
    columns = _columns(x, weight, stride, margins)
    y = columns.reshape(-1, kH * kW * Cin) @ weight.reshape(-1, Cout)
    if bias is not None:
        require_shape("bias", bias, (Cout,))
        require_like("bias", bias, "x", x)
        y += bias
    return y.reshape(*columns.shape[:3], Cout), Conv2dCache(x, weight, stride, margins, bias is not None)


def _columns(x, weight, stride, margins):
    if weight.shape[:2] == (1, 1) and stride == 1:  # a 1 x 1 patch is the pixel itself
        return pad_image(x, margins)
    return im2col(pad_image(x, margins), weight.shape[:2], stride)


def conv2d_backward(dy, cache):
    """dy (N, Ho, Wo, Cout) -> dx, dweight, dbias (None without a bias).

    dweight: each tap (a, b) correlates dy with the input pixel that it saw.
    dx: each input pixel collects dy from every output that it reached, by the tap that reached it. At stride 1 that is
    a convolution again, of dy with the kernel turned by 180° and its channels exchanged; the kernel "rotates"
    because the tap that looked down and right is looked back at from up and left.
    """
    x, weight, stride, margins, has_bias = cache
    kH, kW, Cin, Cout = weight.shape
    drows = dy.reshape(-1, Cout)
    columns = _columns(x, weight, stride, margins)
    dweight = (columns.reshape(-1, kH * kW * Cin).T @ drows).reshape(weight.shape)
    dbias = drows.sum(axis=0) if has_bias else None
    if stride == 1:
        dx = _input_gradient_as_convolution(dy, weight, margins)
    else:
        N, H, W, _ = x.shape
        (top, bottom), (left, right) = margins
        dcolumns = (drows @ weight.reshape(-1, Cout).T).reshape(columns.shape)
        dpadded = col2im(dcolumns, (N, top + H + bottom, left + W + right, Cin), stride)
        dx = dpadded[:, top : top + H, left : left + W]
    return dx, dweight, dbias


def _input_gradient_as_convolution(dy, weight, margins):
    kH, kW, Cin, Cout = weight.shape
    (top, bottom), (left, right) = margins
    rotated = weight[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, Cin)
    if (kH, kW) == (1, 1) and not (top or bottom or left or right):
        return (dy.reshape(-1, Cout) @ rotated).reshape(*dy.shape[:3], Cin)
    full = pad_image(dy, ((kH - 1, kH - 1), (kW - 1, kW - 1)))
    # Rows and columns of the full correlation that fall on the padding are dropped before any work is done on them.
    full = full[:, top : full.shape[1] - bottom, left : full.shape[2] - right]
    columns = im2col(full, (kH, kW), 1)
    return (columns.reshape(-1, kH * kW * Cout) @ rotated).reshape(*columns.shape[:3], Cin)
