"""Pure functions in pairs: op(...) -> (y, cache) and op_backward(dy, cache) -> gradients.

An op that is made of others takes them as its last arguments, so that other pairs can stand in: `softmax` of attention.
No op writes to an argument, and no backward writes to dy or to the cache. N, H, W, C are images, height, width and
channels; L and D are tokens and their width.
"""
