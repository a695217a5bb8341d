"""The lines of the forward from the last to the first, each with the cache that it left."""


def feed_forward_backward(self, dy, cache):
    gated, out = cache
    dh = self.net[2].backward(dy, out)
    return self.net[0].backward(dh, gated)
