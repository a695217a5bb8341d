"""Sums over one axis as products with ones, several times as fast on the host as the array's own method."""

from minild.backend import get_array_module


def sum_rows(x):
    """x (..., P, C) -> (..., C): the sum over the last axis but one."""
    return get_array_module(x).ones(x.shape[-2], x.dtype) @ x


def sum_columns(x):
    """x (..., C) -> (..., 1): the sum over the last axis."""
    return x @ get_array_module(x).ones((x.shape[-1], 1), x.dtype)
