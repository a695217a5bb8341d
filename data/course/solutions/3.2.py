"""Unfolded into patches, a convolution is one matrix product: a row for every place, a column for every channel."""

import numpy as np

from minild.ops.conv import im2col


def conv2d(x, weight, bias=None, stride=1, padding=0):
    kH, kW, Cin, Cout = weight.shape
    margins = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    columns = im2col(np.pad(x, ((0, 0), *margins, (0, 0))), (kH, kW), stride)  # N,Ho,Wo,kH,kW,Cin
    y = columns.reshape(-1, kH * kW * Cin) @ weight.reshape(-1, Cout)
    if bias is not None:
        y = y + bias
    return y.reshape(*columns.shape[:3], Cout), None
