"""Two new axes, each behind the axis that is to grow, stretched to 2 by broadcasting and merged by a reshape."""

from minild.backend import get_array_module


def upsample_nearest(x):
    xp = get_array_module(x)
    N, H, W, C = x.shape
    squares = xp.broadcast_to(x[:, :, None, :, None, :], (N, H, 2, W, 2, C))
    return squares.reshape(N, 2 * H, 2 * W, C), None
