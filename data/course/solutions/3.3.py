"""The gradient of the patches is that of a linear layer's input; col2im adds it up where the patches overlapped."""

import numpy as np

from minild.ops.conv import col2im


def conv2d_backward(dy, cache):
    x, weight, _, stride, margins = cache
    kH, kW, Cin, Cout = weight.shape
    dcolumns = dy.reshape(-1, Cout) @ weight.reshape(-1, Cout).T
    padded = np.pad(x, ((0, 0), *margins, (0, 0)))
    dpadded = col2im(dcolumns.reshape(*dy.shape[:3], kH, kW, Cin), padded.shape, stride)
    (top, _), (left, _) = margins
    return dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], None, None
