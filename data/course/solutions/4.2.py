"""A reshape splits the width into heads and what each of them gets; then the axis of the heads moves to its place."""


def split_heads(x, heads):
    N, L, D = x.shape
    return x.reshape(N, L, heads, D // heads).transpose(0, 2, 1, 3)
