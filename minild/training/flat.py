"""One flat array of all that a module's parameters hold, of which each .data, or each .grad, is a view.

What AdamW, the moving average and the adding up of gradients do is then one pass over one array, in place of one for
each of hundreds of parameters. On the host it lies in memory that is shared with processes forked later.
"""

import mmap
import weakref

import numpy as np

from minild.backend import get_array_module
from minild.ops.validate import require_like, require_shape


class FlatArray:
    """`array`: what the parameters of `module` hold in `field`, "data" or "grad", one after the other."""

    def __init__(self, module, field):
        self.field, self.parameters, self.views = field, list(module.named_parameters()), []
        like, start = self.parameters[0][1].data, 0
        self.array = _zeros(sum(parameter.data.size for _, parameter in self.parameters), like)
        for _, parameter in self.parameters:
            end = start + parameter.data.size
            self.views.append(self.array[start:end].reshape(parameter.data.shape))
            start = end
        self.gather()

    def gather(self):
        """Copy in whatever took a view's place since, and give that its place back -> the flat array.

        A gradient of None counts as zero. ValueError for an array of another shape, dtype or device.
        """
        for (name, parameter), view in zip(self.parameters, self.views):
            value = getattr(parameter, self.field)
            if value is view:
                continue
            if value is None:
                view.fill(0)
            else:
                require_like(f"{name}.{self.field}", value, "the flat array it was gathered in", view)
                require_shape(f"{name}.{self.field}", value, view.shape)
                view[...] = value
            setattr(parameter, self.field, view)
        return self.array

    def serves(self, module):
        """Whether the module still has the parameters it had, in the dtype and on the device they had."""
        now = [parameter for _, parameter in module.named_parameters()]
        return len(now) == len(self.views) and all(
            parameter is mine and type(parameter.data) is type(view) and parameter.data.dtype == view.dtype
            for parameter, (_, mine), view in zip(now, self.parameters, self.views)
        )


_flat = {"data": weakref.WeakKeyDictionary(), "grad": weakref.WeakKeyDictionary()}  # module -> its FlatArray


def flatten(module, field):
    """The module's FlatArray of that field: made once, for its optimiser, average and replicas are to share it."""
    if module not in _flat[field] or not _flat[field][module].serves(module):
        _flat[field][module] = FlatArray(module, field)
    return _flat[field][module]


def _zeros(size, like):
    if isinstance(like, np.ndarray):
        return np.frombuffer(mmap.mmap(-1, size * like.itemsize), like.dtype)
    return get_array_module(like).zeros(size, like.dtype)
