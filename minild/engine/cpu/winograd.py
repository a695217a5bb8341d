"""Winograd's convolution F(4 x 4, 3 x 3): a 4 x 4 tile of outputs for 36 multiplications a channel instead of 144.

(Lavin & Gray 2015, arXiv 1509.09308.) In one dimension, four outputs y_k = Σ_r d_(k+r) g_r of six inputs d and three
taps g. Read g as the polynomial g_0 + g_1 x + g_2 x²: six values of it, at five points and at infinity, are G g. The
transpose of "evaluate both factors, multiply value by value, interpolate the product" is then

    y = Aᵀ [(G g) ⊙ (Bᵀ d)],

with the powers of the points in A, and in B the polynomials that vanish at all points but one. In two dimensions each
matrix acts on rows and on columns: as one matrix product with its Kronecker square, 36 x 36 for the inputs. What is
left between the transforms, a product for each of the 36 values, sums over channels: 36 matrix products.

The rounding grows with the points' powers: of 0, ±a, ±b, a = 3/4 and b = 3/2 lose fewer digits than the usual a = 1 and
b = 2, though more than direct convolution.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from minild.engine.cores import on_all_cores
from minild.engine.cpu import conv
from minild.engine.cpu.sums import sum_rows
from minild.engine.memory import map_pieces, region, windows, workspace
from minild.ops.conv import margins_of

TILE, TAPS = 4, 3
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
SIDE = TILE + TAPS - 1  # of a tile of inputs
VALUES = SIDE * SIDE
LEAST_CHANNELS = 16  # with fewer, the transforms cost more than the products save
LEAST_TILES = 32  # with fewer, so does the transform of the weights
TILES_AT_ONCE = 64  # at least, or the 36 matrices of a piece have too few rows to be multiplied fast
KEPT = 1 << 22  # numbers in the transformed tiles that a call may keep for its backward, in place of x
LARGEST = 1 << 25  # numbers in the transformed weights, four times as many as the weights themselves, at a time


def transforms():
    """(Aᵀ (4, 6), G (6, 3), Bᵀ (6, 6)) in float64."""
    points = np.array(POINTS)
    A_T, G, B_T = np.zeros((TILE, SIDE)), np.zeros((SIDE, TAPS)), np.zeros((SIDE, SIDE))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        A_T[:, i] = point ** np.arange(TILE)
        G[i] = point ** np.arange(TAPS) / np.prod(point - others)
        B_T[i, :-1] = np.poly(others)[::-1]
    A_T[-1, -1] = G[-1, -1] = 1  # at infinity a polynomial is its highest coefficient
    B_T[-1] = np.poly(points)[::-1]
    # A value may be scaled in one factor and back in the other. Equal sizes keep the rounding small.
    balance = np.sqrt(abs(B_T).sum(axis=1) / abs(G).sum(axis=1))[:, None]
    return A_T, G * balance, B_T / balance


A_T, G, B_T = (np.kron(matrix, matrix) for matrix in transforms())  # (16, 36), (36, 9), (36, 36)
_MATRICES = {np.dtype(t): [m.astype(t) for m in (A_T, G, B_T)] for t in (np.float32, np.float64)}


def _tiles(size):
    return -(-size // TILE)


def values_shape(x_shape, margins):
    """The shape of all transformed tiles of x: (tiles, 36, Cin)."""
    N, Ho, Wo = conv_shape(x_shape, margins)
    return N * _tiles(Ho) * _tiles(Wo), VALUES, x_shape[3]


def conv_shape(x_shape, margins):
    """(N, Ho, Wo) of the outputs."""
    N, H, W, _ = x_shape
    return N, H + sum(margins[0]) - TAPS + 1, W + sum(margins[1]) - TAPS + 1


def pays(x, weight, bias=None, stride=1, padding=0):
    """Whether this is the fastest way: 3 x 3 at stride 1, with channels and tiles enough, and few beyond the edge."""
    kH, kW, Cin, Cout = weight.shape
    if (kH, kW, stride) != (TAPS, TAPS, 1) or min(Cin, Cout) < LEAST_CHANNELS:
        return False
    margins = margins_of(padding)
    N, Ho, Wo = conv_shape(x.shape, margins)
    tiles = values_shape(x.shape, margins)[0]
    return tiles >= LEAST_TILES and tiles * TILE * TILE <= 1.5 * N * Ho * Wo


class WinogradCache(NamedTuple):
    x: Any  # None where there are values
    values: Any  # the transform of x, of twice its size: kept in its place where that is not much
    weight: Any
    has_bias: bool
    margins: Any


def conv2d(x, weight, bias=None, stride=1, padding=0, keep=True):
    """`conv2d` of a 3 x 3 kernel at stride 1. Unless `keep`, nothing is made for the backward alone."""
    margins = margins_of(padding)
    shape = values_shape(x.shape, margins)
    values = np.empty(shape, x.dtype) if keep and math.prod(shape) <= KEPT else None
    y = np.empty((*conv_shape(x.shape, margins), weight.shape[3]), x.dtype)
    correlate(x, weight, bias, margins, y, values)
    return y, WinogradCache(x if values is None else None, values, weight, bias is not None, margins)


def conv2d_backward(dy, cache):
    """dy (N, Ho, Wo, Cout) -> dx, dweight, dbias (None without a bias)."""
    x, values, weight, has_bias, margins = cache
    dweight = weight_gradient(x, dy, margins, values)
    dbias = sum_rows(dy.reshape(-1, dy.shape[3])) if has_bias else None
    back = conv.rotated(weight, margins)
    if pays(dy, *back):
        dx, _ = conv2d(dy, *back, keep=False)
    else:
        dx = conv.correlate(dy, *back)
    return dx, dweight, dbias


def _pieces(Cin, y):
    """(images, rows of tiles) that are worked on at once."""
    N, Ho, Wo, Cout = y.shape
    return map_pieces(N, _tiles(Ho), _tiles(Wo), VALUES * max(Cin, Cout), y, TILES_AT_ONCE)


def _numbers(piece, y):
    """The slice of all tiles that the tiles of a piece are."""
    images, rows = piece
    down, across = _tiles(y.shape[1]), _tiles(y.shape[2])
    start = (images.start * down + rows.start) * across
    return slice(start, start + (images.stop - images.start) * (rows.stop - rows.start) * across)


def correlate(x, weight, bias, margins, y, values=None):
    """y[...] = x ⋆ weight + bias at stride 1, for a 3 x 3 kernel, as minild.ops.conv.conv2d has them.

    `values`, an array of values_shape, takes the transformed tiles of x, for weight_gradient to use again.
    """
    Cin, Cout = weight.shape[2:]
    width = max(1, LARGEST // (VALUES * Cin))
    for start in range(0, Cout, width):  # once, unless there are very many channels
        outs = slice(start, start + width)
        _correlate(x, weight[..., outs], None if bias is None else bias[outs], margins, y[..., outs], values)


def _correlate(x, weight, bias, margins, y, values):
    Cin, Cout = weight.shape[2:]
    A_T, G, _ = _MATRICES[x.dtype]
    U = (G @ weight.reshape(TAPS * TAPS, Cin * Cout)).reshape(VALUES, Cin, Cout)
    biases = None if bias is None else np.tile(bias, TILE * TILE)  # one long row for each tile is added faster

    def multiply(piece):
        V = _transform_inputs(x, piece, margins, y, values)
        M = workspace("products", (len(V), VALUES, Cout), x)
        np.matmul(V.swapaxes(0, 1), U, out=M.swapaxes(0, 1))
        outputs = np.matmul(A_T, M, out=workspace("outputs", (len(M), TILE * TILE, Cout), x))
        if bias is not None:
            by_tile = outputs.reshape(len(M), -1)
            by_tile += biases
        _scatter(outputs, y, piece)

    on_all_cores(multiply, _pieces(Cin, y))


def weight_gradient(x, dy, margins, values=None):
    """dweight (3, 3, Cin, Cout): the transposes of the same transforms, dU = Σ_tiles V dM with dM = A dy Aᵀ.

    From x, or from the `values` that correlate made of it.
    """
    Cin, Cout = (x if values is None else values).shape[-1], dy.shape[3]
    A_T, G, _ = _MATRICES[dy.dtype]
    dU = np.zeros((VALUES, Cin, Cout), dy.dtype)
    for piece in _pieces(Cin, dy):
        V = _transform_inputs(x, piece, margins, dy) if values is None else values[_numbers(piece, dy)]
        tiles = _gather(dy, piece, ((0, 0), (0, 0)), dy, TILE)
        dM = np.matmul(A_T.T, tiles, out=workspace("products", (len(tiles), VALUES, Cout), dy))
        dU += np.matmul(V.transpose(1, 2, 0), dM.swapaxes(0, 1), out=workspace("dU", dU.shape, dy))
    return (G.T @ dU.reshape(VALUES, -1)).reshape(TAPS, TAPS, Cin, Cout)


def _transform_inputs(x, piece, margins, y, values=None):
    """V = Bᵀ d B of the tiles of a piece: (tiles, 36, Cin), in its place in `values`, or in workspace."""
    tiles = _gather(x, piece, margins, y, SIDE)
    V = workspace("values", tiles.shape, x) if values is None else values[_numbers(piece, y)]
    return np.matmul(_MATRICES[x.dtype][2], tiles, out=V)


def _gather(x, piece, margins, y, side):
    """The side x side pixels at every fourth pixel of a piece: (tiles, side², C), in workspace."""
    images, rows = piece
    down, across = rows.stop - rows.start, _tiles(y.shape[2])
    (top, _), (left, _) = margins
    height, width = TILE * (down - 1) + side, TILE * (across - 1) + side
    area = region(x, images, TILE * rows.start - top, height, -left, width)
    tiles = windows(area, (side, side), TILE, "tiles")
    return tiles.reshape(-1, side * side, x.shape[3])


def _scatter(outputs, y, piece):
    """Put outputs (tiles, 16, Cout) in their places in y; what is beyond its edge is dropped."""
    images, rows = piece
    target = y[images, TILE * rows.start : TILE * rows.stop]
    N, height, width, Cout = target.shape
    down, across = rows.stop - rows.start, _tiles(width)
    tiles = outputs.reshape(N, down, across, TILE, TILE, Cout).swapaxes(2, 3)  # N,down,TILE,across,TILE,Cout
    if (height, width) == (TILE * down, TILE * across):
        target.reshape(N, down, TILE, across, TILE, Cout)[...] = tiles
    else:
        target[...] = tiles.reshape(N, TILE * down, TILE * across, Cout)[:, :height, :width]
