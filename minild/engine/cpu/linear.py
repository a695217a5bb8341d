"""The linear layer with its sums as products: one matrix product over all rows, and the bias added in place."""

from minild.engine.cpu.sums import sum_rows
from minild.ops.linear import LinearCache


def linear(x, weight, bias=None):
    """`linear` on the rows of x."""
    y = x.reshape(-1, x.shape[-1]) @ weight
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1]), LinearCache(x, weight, bias is not None)


def linear_backward(dy, cache):
    """dy (..., Cout) -> dx, dweight, dbias (None without a bias)."""
    x, weight, has_bias = cache
    rows, drows = x.reshape(-1, weight.shape[0]), dy.reshape(-1, weight.shape[1])
    dx = (drows @ weight.T).reshape(x.shape)
    dweight = rows.T @ drows
    return dx, dweight, sum_rows(drows) if has_bias else None
