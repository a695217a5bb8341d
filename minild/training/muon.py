"""Muon: every matrix moves along its momentum made orthogonal, so that all its directions learn equally fast.

The gradient of a matrix is nearly always dominated by a few directions, its largest singular values; AdamW, which looks
at one number at a time, follows those. With G = U S Vᵀ Muon steps along U Vᵀ, in which the rare directions are as long
as the common ones. (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; how far a step goes
is of Liu et al. 2025, arXiv 2502.16982, section 2.2.)
"""

import math

from minild.backend import get_array_module
from minild.training.optimizer import AdamW, chunks, for_each

# σ ← a σ + b σ³ + c σ⁵, four times: of all such polynomials the first is nearest to 1 on [0.003, 1], and each other on
# what the one before has made of that (Amsel et al. 2025, arXiv 2505.16932). They carry every singular value σ of
# [0.003, 1] to between 0.80 and 1.21. Jordan's one polynomial needs five turns, to between 0.68 and 1.21.
QUINTICS = (
    (8.3837, -24.7659, 18.3571),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
    (2.4901, -1.8343, 0.4368),
)
STEP = 0.2  # root mean square of a step at the learning rate 1: about AdamW's, so that both take the same rate


def orthogonalise(x):
    """x (n, m) -> about U Vᵀ of its singular value decomposition U S Vᵀ, by Newton-Schulz: matrix products alone.

    A polynomial in the singular values that has odd powers only is one in the matrix: with A = XᵀX,
    U (a S + b S³ + c S⁵) Vᵀ = X (a I + b A + c A²) = X Q. Each Q is a polynomial in the first A and so commutes with
    all the others: the next A is Q A Q, and only the product of the four Qs is multiplied with X, the long one.
    """
    n, m = x.shape
    if n < m:
        return orthogonalise(x.T).T
    xp = get_array_module(x)
    x = x / (xp.sqrt((x * x).sum()) + 1e-20)  # the largest singular value is now at most 1; of nothing nothing comes
    gram = x.T @ x
    product = q = _even(gram, *QUINTICS[0])
    for coefficients in QUINTICS[1:]:
        gram = q @ gram @ q
        q = _even(gram, *coefficients)
        product = product @ q
    return x @ product


def _even(gram, a, b, c):
    """a I + b A + c A²"""
    identity = get_array_module(gram).eye(len(gram), dtype=gram.dtype)
    return a * identity + gram @ (b * identity + c * gram)


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
