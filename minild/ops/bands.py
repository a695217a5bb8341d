"""Pieces of a feature map: a few pictures, or a band of rows of one, with the zeros around it; and windows of it."""

from minild.backend import get_array_module, pieces, workspace


def bands(N, rows, columns, size, like, least=1):
    """(images, rows) slices that cover an N x rows map of `columns` pixels a row, each of `size` elements, by pieces.

    A piece has at least `least` pixels, where the map has them.
    """
    image = rows * columns
    together = pieces(N, image * size, like, -(-least // image))
    if len(together) < N or image <= least:
        return [(images, slice(0, rows)) for images in together]
    parts = pieces(rows, columns * size, like, -(-least // columns))
    return [(slice(n, n + 1), part) for n in range(N) for part in parts]


def band(x, images, top, height, left, width):
    """x[images, top : top + height, left : left + width] with zeros where that is outside of the pictures.

    x (N, H, W, C) -> (n, height, width, C): a view, or in workspace and good until the next call.
    """
    H, W, C = x.shape[1:]
    first, last = max(top, 0), min(top + height, H)
    start, stop = max(left, 0), min(left + width, W)
    inside = x[images, first:last, start:stop]
    if inside.shape[1:3] == (height, width):
        return inside
    padded = workspace("band", (len(inside), height, width, C), x)
    padded.fill(0)
    padded[:, first - top : last - top, start - left : stop - left] = inside
    return padded


def windows(x, kernel, step, slot):
    """The windows of kH x kW pixels at every `step`-th pixel down and across: (N, Ho, Wo, kH, kW, C), in workspace.

    x (N, H, W, C). One copy, out of a view in which the windows overlap, along rows of kW · C numbers.
    """
    N, H, W, C = x.shape
    kH, kW = kernel
    step_n, step_h, step_w, step_c = x.strides
    overlapping = get_array_module(x).lib.stride_tricks.as_strided(
        x,
        (N, (H - kH) // step + 1, (W - kW) // step + 1, kH, kW, C),
        (step_n, step * step_h, step * step_w, step_h, step_w, step_c),
    )
    copy = workspace(slot, overlapping.shape, x)
    copy[...] = overlapping
    return copy
