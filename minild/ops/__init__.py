"""Pure functions in pairs: op(...) -> (y, cache) and op_backward(dy, cache) -> gradients.

No op writes to an argument, and no backward writes to dy or to the cache. N, H, W, C are images, height, width and
channels; L and D are tokens and their width.
"""
