"""A weight was used once for every row of x, and so was the bias: their gradients are sums over the rows."""


def linear_backward(dy, cache):
    x, weight, has_bias = cache
    dx = dy @ weight.T
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dweight = rows.T @ drows
    dbias = drows.sum(axis=0) if has_bias else None
    return dx, dweight, dbias
