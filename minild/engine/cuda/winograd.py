"""Winograd's convolution on the GPU: three launches for a quarter of the multiplications, and no unfolded patches.

Float32 alone: float16 has tensor cores for its matrix products, and too few digits for the transforms.
"""

import functools

import numpy as np

from minild.backend import device_of, get_array_module, to_device
from minild.engine.cpu import conv, winograd
from minild.engine.cpu.winograd import SIDE, TAPS, TILE, VALUES
from minild.engine.cuda import dense, elementwise
from minild.engine.memory import row_pieces
from minild.ops.conv import Conv2dCache, margins_of


@functools.cache
def _matrices(device):
    """A (6, 4), Aᵀ (4, 6), Bᵀ (6, 6) and the Kronecker square of G (36, 9) on the device."""
    a_t, _, b_t = winograd.transforms()
    return [to_device(np.ascontiguousarray(m, np.float32), device) for m in (a_t.T, a_t, b_t, winograd.G)]


def _geometry(x, y_shape):
    """(tiles down, tiles across), slices of images that are worked on at once."""
    N, Ho, Wo, Cout = y_shape
    down, across = -(-Ho // TILE), -(-Wo // TILE)
    return (down, across), row_pieces(N, down * across * VALUES * max(x.shape[3], Cout), x)


def _inputs(x, b_t, margins, down, across):
    """V (36, tiles, Cin) of some images."""
    N, H, W, C = x.shape
    tiles = N * down * across
    V = get_array_module(x).empty((SIDE * SIDE, tiles, C), x.dtype)
    (top, _), (left, _) = margins
    elementwise("winograd", "winograd_inputs", tiles * C, x, b_t, V, H, W, C, top, left, down, across)
    return V


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """`conv2d` of a 3 x 3 kernel at stride 1."""
    margins = margins_of(padding)
    return correlate(x, weight, bias, margins), Conv2dCache(x, weight, bias is not None, stride, margins)


def conv2d_backward(dy, cache):
    """dy (N, Ho, Wo, Cout) -> dx, dweight, dbias (None without a bias)."""
    x, weight, has_bias, _, margins = cache
    back = conv.rotated(weight, margins)
    dx = correlate(dy, back[0], None, back[3]) if winograd.pays(dy, *back) else conv.correlate(dy, *back)
    dbias = dy.reshape(-1, dy.shape[3]).sum(axis=0) if has_bias else None
    return dx, weight_gradient(x, dy, margins), dbias


def correlate(x, weight, bias, margins):
    """x ⋆ weight + bias at stride 1, for a 3 x 3 kernel."""
    xp = get_array_module(x)
    y = xp.empty((*winograd.conv_shape(x.shape, margins), weight.shape[3]), x.dtype)
    _, a_t, b_t, G = _matrices(device_of(x))
    x = dense(x, x)
    Cin, Cout = weight.shape[2:]
    U = (G @ weight.reshape(TAPS * TAPS, Cin * Cout)).reshape(VALUES, Cin, Cout)
    bias = xp.zeros(Cout, x.dtype) if bias is None else dense(bias, x)
    (down, across), parts = _geometry(x, y.shape)
    for images in parts:
        M = xp.matmul(_inputs(x[images], b_t, margins, down, across), U)
        places = *y.shape[1:], down, across
        elementwise("winograd", "winograd_outputs", M.shape[1] * Cout, M, a_t, bias, y[images], *places)
    return y


def weight_gradient(x, dy, margins):
    """dweight (3, 3, Cin, Cout), by the transposes of the same transforms."""
    xp = get_array_module(x)
    a, _, b_t, G = _matrices(device_of(x))
    x, dy = dense(x, x), dense(dy, x)
    Cin, Cout = x.shape[3], dy.shape[3]
    dU = xp.zeros((VALUES, Cin, Cout), x.dtype)
    (down, across), parts = _geometry(x, dy.shape)
    for images in parts:
        V = _inputs(x[images], b_t, margins, down, across)
        dM = xp.empty((VALUES, V.shape[1], Cout), x.dtype)
        places = *dy.shape[1:], down, across
        elementwise("winograd", "winograd_gradients", V.shape[1] * Cout, dy[images], a, dM, *places)
        dU += xp.matmul(V.swapaxes(1, 2), dM)
    return (G.T @ dU.reshape(VALUES, -1)).reshape(TAPS, TAPS, Cin, Cout)
