"""What is computed together, and what side by side: for speed, and without a change to any picture.

The rounding of a matrix product depends on its number of rows, and on how many threads BLAS has. A picture is to be the
same bit for bit whether it is drawn alone or among others: so the picture's size and the model alone choose both. Who
draws many and does without that says so, by `in_batches`.
"""

import contextlib
import contextvars

from minild.engine.cores import core_count, side_by_side

SMALL_POSITIONS = 1024  # latent positions of a picture that one core draws well alone
SMALL_MAP = 16384  # numbers in a feature map up to which one pass over two pictures beats two passes on two cores
GPU_POSITIONS = 16384  # latent positions computed at once on a GPU: four pictures of Stable Diffusion's 64 x 64
BATCH_POSITIONS = 2048  # and by a core of the CPU `in_batches`: 32 pictures of 8 x 8, whose maps stay in its cache
PER_CORE = 4  # small pictures that a list hands to each core at once; what an interruption loses grows with it

_in_batches = contextvars.ContextVar("small pictures are drawn in batches on the CPU, too", default=False)


@contextlib.contextmanager
def in_batches():
    """Within it, small pictures are drawn in batches on the CPU, too: those of 8 x 8 positions three times as fast.

    Each begins with the noise of its own seed, as ever; but which others it is drawn with changes its rounding. Like
    `minild.using`, it holds for this thread and the library's own.
    """
    token = _in_batches.set(True)
    try:
        yield
    finally:
        _in_batches.reset(token)


def pictures_at_once(device, h, w, count=None):
    """How many pictures of h x w latent positions are one array: on the CPU one, for its number of rows.

    `in_batches` there are more, and of a `count` as many batches as keep all cores busy, alike in size.
    """
    if device != "cpu":
        return max(1, GPU_POSITIONS // (h * w))
    most = max(1, BATCH_POSITIONS // (h * w)) if _in_batches.get() else 1
    if count is None:
        return most
    cores = core_count()
    return -(-count // (cores * -(-count // (cores * most))))


def batch(device, h, w):
    """How many pictures of h x w latent positions of a long list are drawn by one call: as many as are no slower alone.
    """
    return PER_CORE * core_count() if _is_small(device, h, w) else pictures_at_once(device, h, w)


def _is_small(device, h, w):
    return device == "cpu" and h * w <= SMALL_POSITIONS


def workers(device, h, w):
    """A context with a map() over pictures: small ones are drawn side by side on the host's cores, BLAS on one thread
    in each; large ones one after the other, with all cores to themselves.
    """
    return side_by_side() if _is_small(device, h, w) else contextlib.nullcontext(map)


def passes(unet, h, w, count, guidance_scale):
    """A context with how `guided` makes its two passes of the U-Net: a map() over them, or None for one pass over both.

    On the CPU they are made apart where the feature maps are large enough to keep two cores busy, and side by side
    unless other pictures of the `count` do so, or there are more cores than two passes can use: these are for each
    operation to spread over, as they are for the only pass at scale 1.
    """
    values = h * w * unet.config["block_out_channels"][0]
    if guidance_scale == 1 or unet.device != "cpu" or values <= SMALL_MAP:
        return contextlib.nullcontext()
    idle = count == 1 if h * w <= SMALL_POSITIONS else core_count() <= 2
    return side_by_side() if idle else contextlib.nullcontext(map)
