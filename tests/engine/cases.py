"""Arguments for each row of the engine's table, of shapes that reach each of its branches.

A row is named (op, "host" or "gpu", its function). Arrays stand as shapes; what an op takes besides is in `settings`.
"""

from typing import NamedTuple

import numpy as np

from minild.engine.table import OPS


class Case(NamedTuple):
    shapes: tuple
    settings: dict = {}


def case(*shapes, **settings):
    return Case(shapes, settings)


AFFINE = [((2, 5, 3, 6), 2), ((3, 4, 3, 4), 1), ((2, 7, 6), 3), ((1, 16, 12, 40), 8), ((2, 1, 1, 300), 100)]
NORMS = [case(shape, shape[-1:], shape[-1:], groups=groups) for shape, groups in AFFINE]
ELEMENTWISE = [case((3, 6)), case((2, 3, 5, 4)), case((1, 1, 700))]
FEW = [  # attention with few scores
    case((2, 5, 6), (2, 3, 6), (2, 3, 6), heads=2),
    case((2, 5, 6), (2, 5, 6), (2, 5, 6), heads=3, causal=True),
    case((1, 4, 6), (1, 1, 6), (1, 1, 6), heads=1),
]
MANY = [
    case((2, 1500, 6), (2, 800, 6), (2, 800, 6), heads=2),
    case((1, 1500, 4), (1, 1500, 4), (1, 1500, 4), heads=1, causal=True),
]
PRODUCTS = [case((2, 5, 4, 3), (1, 1, 3, 7), (7,)), case((1, 3, 2, 4), (1, 1, 4, 2), None, padding=((0, 0), (0, 0)))]
PATCHES = [
    case((2, 7, 5, 3), (3, 3, 3, 4), (4,), padding=1),
    case((2, 7, 5, 3), (3, 3, 3, 4), (4,), stride=2, padding=((0, 1), (0, 1))),  # the autoencoder's downsampling
    case((2, 7, 5, 3), (1, 1, 3, 4), (4,), stride=2),
    case((2, 7, 5, 3), (3, 2, 3, 4), None, padding=((2, 0), (1, 3))),
    case((2, 7, 5, 3), (3, 2, 3, 4), (4,), stride=3, padding=((1, 0), (2, 1))),
    case((1, 32, 40, 8), (4, 4, 8, 5), (5,), stride=2, padding=1),
]
WINOGRAD = [
    case((3, 16, 16, 32), (3, 3, 32, 48), (48,), padding=1),
    case((2, 30, 21, 17), (3, 3, 17, 16), None, padding=1),  # tiles over the edge
    case((2, 22, 23, 16), (3, 3, 16, 19), (19,), padding=((0, 2), (2, 1))),
    case((10, 10, 10, 16), (3, 3, 16, 16), (16,)),  # dy's convolution has margins of its own
    case((40, 6, 6, 16), (3, 3, 16, 16), (16,)),  # and here it reaches too far over the edge: dx goes by patches
]

HOST = {
    ("linear", "linear"): [case((2, 5, 4), (4, 7), (7,)), case((3, 4), (4, 2), None), case((2, 3, 5, 4), (4, 3), (3,))],
    ("conv2d", "conv2d_product"): PRODUCTS,
    ("conv2d", "winograd"): WINOGRAD,
    ("conv2d", "conv2d"): PATCHES,
    ("group_norm", "group_norm"): NORMS,
    ("group_norm_silu", "group_norm_silu"): NORMS,
    ("layer_norm", "layer_norm"): [case((3, 7), (7,), (7,)), case((2, 3, 5), (5,), (5,), eps=0.7)],
    ("silu", "silu"): ELEMENTWISE,
    ("quick_gelu", "quick_gelu"): ELEMENTWISE,
    ("gelu", "gelu"): ELEMENTWISE,
    ("geglu", "geglu"): ELEMENTWISE,
    ("softmax", "softmax"): ELEMENTWISE,
    ("attention", "attention"): FEW,
    ("attention", "sliced_attention"): MANY,
    ("upsample_nearest", "upsample_nearest"): [case((2, 3, 5, 2)), case((1, 9, 4, 3))],
    ("quantize", "quantize"): [case((2, 3, 5, 4), (7, 4)), case((6, 3), (4, 3), beta=3.0)],
}
GPU = {
    ("conv2d", "winograd"): [
        case((3, 12, 13, 17), (3, 3, 17, 18), (18,), padding=1),  # tiles over the edge
        case((3, 12, 12, 17), (3, 3, 17, 18), None, padding=((0, 2), (1, 0))),
    ],
    ("group_norm", "norm"): [
        case((2, 5, 3, 6), (6,), (6,), groups=3),  # few channels: many rows of pixels in a block, one tile
        case((1, 3, 3, 300), (300,), (300,), groups=1),  # a group wider than a block
        case((2, 3, 2, 330), (330,), (330,), groups=33),  # two blocks across, the second not full
        case((1, 1, 1, 40), (40,), (40,), groups=4),  # a single pixel
    ],
    ("layer_norm", "norm"): [case((3, 7), (7,), (7,)), case((2, 5, 70), (70,), (70,)), case((21, 32), (32,), (32,))],
    ("silu", "activation"): [case((7, 3, 26))],  # two blocks, the last not full
    ("quick_gelu", "activation"): [case((7, 3, 26))],
    ("gelu", "activation"): [case((7, 3, 26))],
    ("geglu", "activation"): [case((7, 3, 26))],
    ("attention", "attention"): [
        case((1, 70, 12), (1, 5, 12), (1, 5, 12), heads=2),  # two tiles of queries, most of the tile of keys empty
        case((1, 3, 40), (1, 130, 40), (1, 130, 40), heads=1),  # three tiles of keys, more than a slice of columns
        case((1, 67, 36), (1, 67, 36), (1, 67, 36), heads=2, causal=True),
        case((2, 2, 160), (2, 3, 160), (2, 3, 160), heads=1),  # the widest head
    ],
}
GPU["group_norm_silu", "norm"] = GPU["group_norm", "norm"]


def _file(fast):
    return fast.op.__module__.split(".")[-1]


def rows(room):
    """{(op, name): Fast} of the table's rows in minild.engine.cpu or minild.engine.cuda.

    On the host the name is the function's, Winograd's its file; on the GPU, where a file is a kernel's, the file.
    """
    found = {}
    for name, op in OPS.items():
        for fast in op.fast:
            if fast.op.__module__.split(".")[-2] == room:
                short = _file(fast) if room == "cuda" or _file(fast) == "winograd" else fast.op.__name__
                found[name, short] = fast
    return found


def arguments(case, rng, dtype):
    """The case's arrays, about as large as in a model; x and what it is compared with are not centred."""
    arrays = [None if shape is None else rng.standard_normal(shape) for shape in case.shapes]
    if len(case.shapes) > 1 and case.shapes[1] is not None and len(case.shapes[1]) == 4:  # a kernel
        arrays[1] /= np.sqrt(np.prod(case.shapes[1][:3]))
    elif len(case.shapes) == 1 or "groups" in case.settings:
        arrays[0] = 0.5 + 2 * arrays[0]
    return [None if x is None else x.astype(dtype) for x in arrays]


def upstream(y, rng):
    """A random dy like y, of the dtype of y; a number for a scalar."""
    if isinstance(y, tuple):
        return tuple(upstream(part, rng) for part in y)
    return rng.standard_normal(y.shape).astype(y.dtype)


def flat(y):
    """The arrays of an output or of the gradients, in order."""
    parts = y if isinstance(y, tuple) else (y,)
    return [np.asarray(part) for part in parts if part is not None]


def textbook(name, arrays, settings, dy):
    """y and the gradients of the textbook in float64."""
    op = OPS[name]
    y, cache = op.op(*[None if x is None else x.astype(float) for x in arrays], **settings)
    dy = tuple(part.astype(float) for part in dy) if isinstance(dy, tuple) else dy.astype(float)
    return [*flat(y), *flat(op.op_backward(dy, cache))]


def assert_within(got, expected, tolerance, what):
    """Each array within `tolerance` of the largest value of the expected one."""
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape, f"{what}, array {i}: shape {a.shape}, expected {b.shape}"
        error = np.abs(a.astype(float) - b).max() / max(np.abs(b).max(), 1e-30)
        assert error <= tolerance, f"{what}, array {i}: off by {error:.2g} of its largest value"
