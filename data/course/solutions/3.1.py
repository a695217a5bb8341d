"""A loop over the taps: each sees a slice of the picture, shifted by its place and thinned out by the stride."""

import numpy as np


def im2col(padded, kernel, stride):
    N, H, W, C = padded.shape
    kH, kW = kernel
    Ho, Wo = (H - kH) // stride + 1, (W - kW) // stride + 1
    columns = np.empty((N, Ho, Wo, kH, kW, C), padded.dtype)
    for a in range(kH):
        for b in range(kW):
            columns[:, :, :, a, b] = padded[:, a : a + stride * Ho : stride, b : b + stride * Wo : stride]
    return columns
