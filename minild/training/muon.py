"""Muon: every matrix moves along its momentum made orthogonal, so that all its directions learn equally fast.

The gradient of a matrix is nearly always dominated by a few directions, its largest singular values; AdamW, which looks
at one number at a time, follows those. With G = U S Vᵀ Muon steps along U Vᵀ, in which the rare directions are as long
as the common ones. (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; how far a step goes
is of Liu et al. 2025, arXiv 2502.16982, section 2.2.)
"""

import math

from minild.backend import get_array_module
from minild.training.optimizer import AdamW, chunks, for_each

# σ ← a σ + b σ³ + c σ⁵, five times, carries every singular value σ of [0.002, 1] to between 0.68 and 1.21: Jordan's
# numbers, which trade nearness to 1 for how fast a small σ grows, a at each turn.
QUINTIC, TURNS = (3.4445, -4.7750, 2.0315), 5
STEP = 0.2  # root mean square of a step at the learning rate 1: about AdamW's, so that both take the same rate


def orthogonalise(x):
    """x (n, m) -> about U Vᵀ of its singular value decomposition U S Vᵀ, by Newton-Schulz: matrix products alone.

    A polynomial in the singular values that has odd powers only is one in the matrix: with A = XᵀX,
    U (a S + b S³ + c S⁵) Vᵀ = X (a I + b A + c A²) = X Q. Each Q is a polynomial in the first A and so commutes with
    all the others: the next A is Q A Q, and only the product of the five Qs is multiplied with X, the long one.
    """
    n, m = x.shape
    if n < m:
        return orthogonalise(x.T).T
    xp, (a, b, c) = get_array_module(x), QUINTIC
    x = x / (xp.sqrt((x * x).sum()) + 1e-30)  # the largest singular value is now at most 1
    gram, identity = x.T @ x, xp.eye(m, dtype=x.dtype)
    product = q = a * identity + gram @ (b * identity + c * gram)
    for _ in range(TURNS - 1):
        gram = q @ gram @ q
        q = a * identity + gram @ (b * identity + c * gram)
        product = product @ q
    return x @ product


class Muon(AdamW):
    """M ← μ M + (1 - μ) G;  W ← (1 - η λ) W - η s orthogonalise((1 - μ) G + μ M) for every linear weight and every
    convolution's kernel, one matrix (inputs, outputs) each; AdamW for all others: biases, scales, embeddings.

    s = STEP √max(n, m) gives the step of an n x m matrix, whose root mean square is 1 / √max(n, m), that of AdamW's.
    The direction is Nesterov's: one step of the momentum ahead.
    """

    def __init__(self, module, momentum=0.95, **settings):
        super().__init__(module, **settings)
        self.momentum, self.matrices, self.pieces, end = momentum, [], [], 0
        for parameter in module.parameters():
            start, end = end, end + parameter.data.size
            if parameter.layout in ("linear", "conv"):
                self.matrices.append((slice(start, end), parameter.data.shape[-1]))
            else:
                self.pieces += chunks(self.m, start, end)

    def step(self, learning_rate):
        """Take one step along the gradient, which is left as it is."""
        super().step(learning_rate)  # of self.pieces
        arrays = self.gradient, self.m, self.weights

        def move(matrix):
            piece, columns = matrix
            self._move(*(x[piece].reshape(-1, columns) for x in arrays), learning_rate)

        for_each(move, self.matrices, self.m)

    def _move(self, g, m, weights, learning_rate):
        momentum = self.momentum
        m += (1 - momentum) * (g - m)
        direction = orthogonalise((1 - momentum) * g + momentum * m)
        weights *= 1 - learning_rate * self.weight_decay
        weights -= learning_rate * STEP * math.sqrt(max(g.shape)) * direction


OPTIMIZERS = {"adamw": AdamW, "muon": Muon}  # by the name that a StagePreset has for it


def optimizer_for(model, preset):
    """What moves the weights of a stage, by its StagePreset."""
    return OPTIMIZERS[preset.optimizer](model, weight_decay=preset.weight_decay)
