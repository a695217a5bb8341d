"""Convolution as matrix products, a piece of the picture at a time.

A 1 x 1 kernel is one product, with nothing to unfold. For any other the patches of a piece are unfolded and multiplied
while they are in the cache; all patches at once would take kH·kW times the memory of the picture, and a trip to it.
"""

from minild.backend import get_array_module
from minild.engine.cores import on_all_cores
from minild.engine.cpu.sums import sum_rows
from minild.engine.memory import map_pieces, region, windows
from minild.ops.conv import Conv2dCache, col2im, margins_of

LEAST_ROWS = 256  # of the patches multiplied at once: with fewer, reading the weights takes longer than the product


def is_product(x, weight, bias=None, stride=1, padding=0):
    """Whether the convolution is a product of the pixels as they lie with one matrix."""
    return weight.shape[:2] == (1, 1) and stride == 1 and margins_of(padding) == ((0, 0), (0, 0))


def conv2d_product(x, weight, bias=None, stride=1, padding=0):
    """`conv2d` with a 1 x 1 kernel: a linear layer on every pixel."""
    Cin, Cout = weight.shape[2:]
    y = (x.reshape(-1, Cin) @ weight.reshape(Cin, Cout)).reshape(*x.shape[:3], Cout)
    if bias is not None:
        y += bias
    return y, Conv2dCache(x, weight, bias is not None, stride, margins_of(padding))


def conv2d_product_backward(dy, cache):
    """dy (N, H, W, Cout) -> dx, dweight, dbias (None without a bias)."""
    x, weight, has_bias, _, _ = cache
    Cin, Cout = weight.shape[2:]
    drows = dy.reshape(-1, Cout)
    dweight = (x.reshape(-1, Cin).T @ drows).reshape(weight.shape)
    dx = (drows @ weight.reshape(Cin, Cout).T).reshape(x.shape)
    return dx, dweight, sum_rows(drows) if has_bias else None


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """`conv2d` over patches."""
    margins = margins_of(padding)
    return correlate(x, weight, bias, stride, margins), Conv2dCache(x, weight, bias is not None, stride, margins)


def conv2d_backward(dy, cache):
    """dy (N, Ho, Wo, Cout) -> dx, dweight, dbias (None without a bias)."""
    x, weight, has_bias, stride, margins = cache
    dweight = weight_gradient(x, weight, dy, stride, margins)
    dbias = sum_rows(dy.reshape(-1, dy.shape[3])) if has_bias else None
    if stride == 1:
        dx = correlate(dy, *rotated(weight, margins))
    else:
        dx = _fold_input_gradient(x, weight, dy, stride, margins)
    return dx, dweight, dbias


def rotated(weight, margins):
    """The convolution of dy that gives dx at stride 1: (weight, bias, stride, margins).

    Each input pixel collects dy from every output that it reached, by the tap that reached it. The kernel turns by
    180°, because the tap that looked down and right is looked back at from up and left, and its channels change places.
    """
    kH, kW = weight.shape[:2]
    (top, bottom), (left, right) = margins
    back = (kH - 1 - top, kH - 1 - bottom), (kW - 1 - left, kW - 1 - right)
    return weight[::-1, ::-1].transpose(0, 1, 3, 2), None, 1, back


def correlate(x, weight, bias, stride, margins):
    """x ⋆ weight + bias: (N, Ho, Wo, Cout)."""
    N, H, W, Cin = x.shape
    kH, kW, _, Cout = weight.shape
    Ho, Wo = ((size + sum(m) - k) // stride + 1 for size, m, k in zip((H, W), margins, (kH, kW)))
    y = get_array_module(x).empty((N, Ho, Wo, Cout), x.dtype)
    matrix = weight.reshape(-1, Cout)

    def multiply(piece):
        columns = _unfold(x, piece, weight, stride, margins, Wo)
        sums = columns.reshape(-1, kH * kW * Cin) @ matrix
        if bias is not None:
            sums += bias
        y[piece] = sums.reshape(*columns.shape[:3], Cout)

    on_all_cores(multiply, map_pieces(N, Ho, Wo, kH * kW * Cin, x, LEAST_ROWS))
    return y


def _unfold(x, piece, weight, stride, margins, Wo):
    """The patches (images, rows, Wo, kH, kW, C) under the kernel at a piece of the output, in workspace."""
    kH, kW = weight.shape[:2]
    images, rows = piece
    (top, _), (left, _) = margins
    height, width = (rows.stop - rows.start - 1) * stride + kH, (Wo - 1) * stride + kW
    seen = region(x, images, rows.start * stride - top, height, -left, width)
    return windows(seen, (kH, kW), stride, "columns")


def weight_gradient(x, weight, dy, stride, margins):
    """dweight (kH, kW, Cin, Cout): each tap correlates dy with the input pixel that it saw."""
    kH, kW, Cin, Cout = weight.shape
    N, Ho, Wo, _ = dy.shape
    dweight = get_array_module(x).zeros((kH * kW * Cin, Cout), x.dtype)
    for piece in map_pieces(N, Ho, Wo, kH * kW * Cin, x, LEAST_ROWS):
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
