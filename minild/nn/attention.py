"""Attention with its projections, the transformer block, and the transformer over a feature map."""

from minild.nn.layers import GEGLU, Conv2d, GroupNorm, LayerNorm, Linear
from minild.nn.module import Module, add_gradients
from minild.nn.watching import attend


class Attention(Module):
    """softmax(Q Kᵀ / √d) V with Q = x W_q, and K, V of the context, or of x itself where there is none; then W_out.

    x (N, Lq, D), context (N, Lk, Dc) or None -> y (N, Lq, D). (Latent diffusion paper, section 3.3.)
    """

    def __init__(self, width, heads, context_width=None, bias=False):
        self.to_q = Linear(width, width, bias)
        self.to_k = Linear(context_width or width, width, bias)
        self.to_v = Linear(context_width or width, width, bias)
        self.to_out = [Linear(width, width)]
        self.heads = heads

    def forward(self, x, context=None):
        """x (N, Lq, D), context (N, Lk, Dc) or None -> y (N, Lq, D)."""
        source = x if context is None else context
        q, cache_q = self.to_q.forward(x)
        k, cache_k = self.to_k.forward(source)
        v, cache_v = self.to_v.forward(source)
        h, cache_attention = attend(self, q, k, v, cross=context is not None)
        y, cache_out = self.to_out[0].forward(h)
        return y, (cache_q, cache_k, cache_v, cache_attention, cache_out, context is None)

    def backward(self, dy, cache):
        """dy (N, Lq, D) -> dx (N, Lq, D), dcontext (N, Lk, Dc) or None for self-attention."""
        cache_q, cache_k, cache_v, cache_attention, cache_out, is_self = cache
        dh = self.to_out[0].backward(dy, cache_out)
        dq, dk, dv = cache_attention.backward(dh)
        dsource = self.to_v.backward(dv, cache_v)
        dsource += self.to_k.backward(dk, cache_k)
        dx = self.to_q.backward(dq, cache_q)
        return (dx + dsource, None) if is_self else (dx, dsource)


class GatedProjection(Module):
    """A linear layer to twice the width, and GEGLU back to it: (..., D) -> (..., inner)."""

    def __init__(self, width, inner):
        self.proj = Linear(width, 2 * inner)

    def forward(self, x):
        """x (..., D) -> y (..., inner)."""
        h, proj = self.proj.forward(x)
        h, gate = GEGLU.forward(h)
        return h, (proj, gate)

    def backward(self, dy, cache):
        """dy (..., inner) -> dx (..., D)."""
        proj, gate = cache
        return self.proj.backward(GEGLU.backward(dy, gate), proj)


class FeedForward(Module):
    """GEGLU at four times the width, and back: (..., D) -> (..., D)."""

    def __init__(self, width):
        # The reference keeps a dropout at net.1, which has no parameters.
        self.net = [GatedProjection(width, 4 * width), None, Linear(4 * width, width)]

    def forward(self, x):
        """x (..., D) -> y (..., D)."""
        h, gated = self.net[0].forward(x)
        h, out = self.net[2].forward(h)
        return h, (gated, out)

    def backward(self, dy, cache):
        """dy (..., D) -> dx (..., D)."""
        gated, out = cache
        return self.net[0].backward(self.net[2].backward(dy, out), gated)


class BasicTransformerBlock(Module):
    """x + attn1(norm1(x)), then + attn2(norm2(x), context), then + ff(norm3(x)). (Paper, appendix E.2.1, Table 15.)

    x (N, L, D), context (N, Lk, Dc) -> y (N, L, D). With `only_cross`, attn1 attends to the context, too.
    """

    def __init__(self, width, heads, context_width, only_cross=False):
        self.only_cross = only_cross
        self.norm1 = LayerNorm(width)
        self.attn1 = Attention(width, heads, context_width if only_cross else None)
        self.norm2 = LayerNorm(width)
        self.attn2 = Attention(width, heads, context_width)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x, context):
        """x (N, L, D), context (N, Lk, Dc) -> y (N, L, D)."""
        h, norm1 = self.norm1.forward(x)
        h, attn1 = self.attn1.forward(h, context if self.only_cross else None)
        x = x + h
        h, norm2 = self.norm2.forward(x)
        h, attn2 = self.attn2.forward(h, context)
        x = x + h
        h, norm3 = self.norm3.forward(x)
        h, ff = self.ff.forward(h)
        return x + h, (norm1, attn1, norm2, attn2, norm3, ff)

    def backward(self, dy, cache):
        """dy (N, L, D) -> dx (N, L, D), dcontext (N, Lk, Dc)."""
        norm1, attn1, norm2, attn2, norm3, ff = cache
        dx = dy + self.norm3.backward(self.ff.backward(dy, ff), norm3)
        dh, dcontext = self.attn2.backward(dx, attn2)
        dx += self.norm2.backward(dh, norm2)
        dh, d = self.attn1.backward(dx, attn1)
        dx += self.norm1.backward(dh, norm1)
        return dx, add_gradients(dcontext, d)


class Transformer2DModel(Module):
    """Feature map to tokens, transformer blocks with cross-attention to the context, and back, with a residual.

    x (N, H, W, C), context (N, Lk, Dc) -> y (N, H, W, C). The projections in and out are 1 x 1 convolutions in
    Stable Diffusion 1 and linear layers in 2 (`linear_projection`): the same arithmetic, stored with another shape.
    """

    def __init__(
        self, channels, heads, context_width, *, depth=1, groups=32, linear_projection=False, only_cross=False
    ):
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = _projection(channels, linear_projection)
        self.transformer_blocks = [
            BasicTransformerBlock(channels, heads, context_width, only_cross) for _ in range(depth)
        ]
        self.proj_out = _projection(channels, linear_projection)

    def forward(self, x, context):
        """x (N, H, W, C), context (N, Lk, Dc) -> y (N, H, W, C)."""
        N, H, W, C = x.shape
        h, norm = self.norm.forward(x)
        h, proj_in = self.proj_in.forward(h)
        h = h.reshape(N, H * W, C)
        blocks = []
        for block in self.transformer_blocks:
            h, cache = block.forward(h, context)
            blocks.append(cache)
        h, proj_out = self.proj_out.forward(h.reshape(N, H, W, C))
        return x + h, (norm, proj_in, blocks, proj_out)

    def backward(self, dy, cache):
        """dy (N, H, W, C) -> dx (N, H, W, C), dcontext (N, Lk, Dc)."""
        norm, proj_in, blocks, proj_out = cache
        N, H, W, C = dy.shape
        dh = self.proj_out.backward(dy, proj_out).reshape(N, H * W, C)
        dcontext = None
        for block, block_cache in zip(reversed(self.transformer_blocks), reversed(blocks)):
            dh, dblock = block.backward(dh, block_cache)
            dcontext = add_gradients(dcontext, dblock)
        dh = self.proj_in.backward(dh.reshape(N, H, W, C), proj_in)
        return dy + self.norm.backward(dh, norm), dcontext


def _projection(channels, as_linear):
    return Linear(channels, channels) if as_linear else Conv2d(channels, channels, kernel_size=1, padding=0)


class AttentionBlock2D(Attention):
    """The autoencoder's self-attention over pixels: x + attention(group_norm(x)), all projections with a bias.

    x (N, H, W, C) -> y (N, H, W, C).
    """

    def __init__(self, channels, *, heads=1, groups=32, eps=1e-6):
        super().__init__(channels, heads, bias=True)
        self.group_norm = GroupNorm(groups, channels, eps)

    def forward(self, x):
        """x (N, H, W, C) -> y (N, H, W, C)."""
        N, H, W, C = x.shape
        h, norm = self.group_norm.forward(x)
        h, attention = super().forward(h.reshape(N, H * W, C))
        return x + h.reshape(x.shape), (norm, attention)

    def backward(self, dy, cache):
        """dy (N, H, W, C) -> dx (N, H, W, C)."""
        norm, attention = cache
        N, H, W, C = dy.shape
        dh, _ = super().backward(dy.reshape(N, H * W, C), attention)
        return dy + self.group_norm.backward(dh.reshape(dy.shape), norm)
