"""Outlines of pictures: white where colours change steeply, black elsewhere. What a ControlNet is trained to follow."""

import numpy as np

LEAST = 0.15  # of the range of a channel: a smaller step between two colours is none


def outlines(pictures):
    """(N, H, W, 3) uint8 -> (N, H, W, 3) uint8, 255 on outlines and 0 elsewhere.

    By Sobel's filter: two kernels of 3 x 3 estimate how steeply each channel changes to the right and down, and where
    the steepest of the channels does so by LEAST or more there is an outline. At the picture's edge there is none.
    """
    x = pictures.astype(np.float32) / 255
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    smooth = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]  # (N, H, W + 2, C), weights 1 2 1 down
    right = smooth[:, :, 2:] - smooth[:, :, :-2]
    smooth = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]  # (N, H + 2, W, C), weights 1 2 1 to the right
    down = smooth[:, 2:] - smooth[:, :-2]
    steepness = np.sqrt(right**2 + down**2).max(axis=-1, keepdims=True) / 4  # 1 at a step from 0 to 1
    return np.repeat(np.where(steepness >= LEAST, 255, 0).astype(np.uint8), 3, axis=-1)
