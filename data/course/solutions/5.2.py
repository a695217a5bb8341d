"""Three paths lead from x to xhat: those through mean and variance take off the mean, and the part along xhat."""

from minild.ops.norm import by_group


def group_norm_backward(dy, cache):
    xhat, gamma, rstd, groups = cache
    C = dy.shape[-1]
    dgamma = (dy * xhat).reshape(-1, C).sum(axis=0)
    dbeta = dy.reshape(-1, C).sum(axis=0)
    dxhat, xhat = by_group(gamma * dy, groups), by_group(xhat, groups)
    through_mean = dxhat.mean(axis=(1, 3), keepdims=True)
    through_variance = xhat * (dxhat * xhat).mean(axis=(1, 3), keepdims=True)
    dx = rstd * (dxhat - through_mean - through_variance)
    return dx.reshape(dy.shape), dgamma, dbeta
