"""∂y_i/∂x_j is y_i - y_i y_j for i = j, and -y_i y_j elsewhere: the second part is a sum that the whole row shares."""


def softmax_backward(dy, cache):
    y = cache.y
    shared = (dy * y).sum(axis=-1, keepdims=True)
    return y * (dy - shared)
