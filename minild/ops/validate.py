"""The checks that every op makes of its arguments: one line that names the argument, what came, what was expected."""


def require_rank(name, x, rank, layout):
    """ValueError unless `x` has `rank` axes, `layout` being their names, such as "(N, H, W, C)"."""
    if x.ndim != rank:
        raise ValueError(f"{name}: expected {layout}, got shape {x.shape}")


def require_shape(name, x, shape):
    """ValueError unless x.shape equals `shape`, where None stands for any size."""
    if x.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, x.shape)):
        wanted = tuple("any" if size is None else size for size in shape)
        raise ValueError(f"{name}: expected shape {wanted}, got {x.shape}")


def require_like(name, x, reference_name, reference):
    """ValueError unless `x` has the dtype and the array type of `reference`."""
    if type(x) is not type(reference):
        raise ValueError(f"{name}: expected a {type(reference).__name__} like {reference_name}, got {type(x).__name__}")
    if x.dtype != reference.dtype:
        raise ValueError(f"{name}: expected dtype {reference.dtype} like {reference_name}, got {x.dtype}")


def require_integers(name, x):
    """ValueError unless `x` holds integers."""
    if x.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {x.dtype}")
