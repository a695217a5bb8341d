"""Embeddings of what leads a U-Net beside its latents: the timestep, a class, a representation made elsewhere."""

from minild.backend import get_array_module
from minild.engine import run
from minild.nn.around import Around
from minild.nn.layers import SILU, Identity, LayerNorm, Linear
from minild.nn.module import Module, Parameter
from minild.ops.embedding import timestep_embedding, token_embedding


class TimestepEmbedding(Module):
    """Linear, SiLU, linear: (N, C) -> (N, width)."""

    def __init__(self, in_channels, width):
        self.linear_1 = Linear(in_channels, width)
        self.linear_2 = Linear(width, width)

    def forward(self, x):
        """x (N, C) -> y (N, width)."""
        h, first = self.linear_1.forward(x)
        h, act = SILU.forward(h)
        h, second = self.linear_2.forward(h)
        return h, (first, act, second)

    def backward(self, dy, cache):
        """dy (N, width) -> dx (N, C)."""
        first, act, second = cache
        dh = self.linear_2.backward(dy, second)
        return self.linear_1.backward(SILU.backward(dh, act), first)


class SinusoidalEmbedding(TimestepEmbedding):
    """A TimestepEmbedding of numbers: t (N,) -> (N, width), by `frequencies` sines and cosines."""

    def __init__(self, frequencies, width, flip_sin_to_cos=True, freq_shift=0):
        super().__init__(frequencies, width)
        self.settings = frequencies, flip_sin_to_cos, freq_shift

    def forward(self, t):
        """t (N,) -> y (N, width)."""
        waves, angles = run(timestep_embedding, t, *self.settings)
        y, cache = super().forward(waves.astype(self.linear_1.weight.value.dtype, copy=False))
        return y, (angles, cache)

    def backward(self, dy, cache):
        """dy (N, width) -> dt (N,)."""
        angles, cache = cache
        return angles.backward(super().backward(dy, cache))


class LabelEmbedding(Module):
    """A learned vector for each class: labels (N,) -> (N, width)."""

    def __init__(self, classes, width):
        self.weight = Parameter((classes, width), ("normal", 1.0))  # the reference's

    def forward(self, labels):
        """labels (N,) whole numbers -> y (N, width)."""
        return run(token_embedding, labels, self.weight.value)

    def backward(self, dy, cache):
        """dy (N, width). Adds to the weight's gradient; labels have none, so None is returned."""
        self.weight.accumulate(cache.backward(dy))


class LearntVectors(Around):
    """An Embedding of ids (N, L) in which some tokens have vectors of their own: those that are trained.

    first: the first of the tokens' ids, which follow each other. vectors (n, D) are no parameters of the model.
    """

    def __init__(self, embedding, first, vectors):
        super().__init__(embedding)
        self.first, self.vectors = first, Parameter(vectors.shape, 0.0)
        self.vectors.data = vectors

    def forward(self, ids):
        """ids (N, L) integers -> y (N, L, D)."""
        xp, mine = get_array_module(ids), (ids >= self.first) & (ids < self.first + len(self.vectors.data))
        y, others = self.module.forward(ids)
        own, call = run(token_embedding, xp.where(mine, ids - self.first, 0), self.vectors.value)
        return xp.where(mine[..., None], own, y), (others, call, mine)

    def backward(self, dy, cache):
        """dy (N, L, D). Adds to the gradients of both; ids have none, so nothing is returned."""
        others, call, mine = cache
        self.module.backward(dy * ~mine[..., None], others)
        self.vectors.accumulate(call.backward(dy * mine[..., None]))


class ImageProjection(Module):
    """Tokens from one vector: linear, cut into `tokens` pieces, each normalised: (N, C) -> (N, tokens, width)."""

    def __init__(self, in_channels, width, tokens=32):
        self.image_embeds = Linear(in_channels, tokens * width)
        self.norm = LayerNorm(width)
        self.tokens = tokens

    def forward(self, x):
        """x (N, C) -> y (N, tokens, width)."""
        h, linear = self.image_embeds.forward(x)
        y, norm = self.norm.forward(h.reshape(len(x), self.tokens, -1))
        return y, (linear, norm)

    def backward(self, dy, cache):
        """dy (N, tokens, width) -> dx (N, C)."""
        linear, norm = cache
        dh = self.norm.backward(dy, norm)
        return self.image_embeds.backward(dh.reshape(len(dh), -1), linear)


def class_embedding(config, width):
    """The Module that embeds class labels as a U-Net's config says -> (N, width); None where it takes no labels.

    class_embed_type None with num_class_embeds is a table of labels (N,); "timestep" takes numbers (N,), "projection"
    (two layers) and "simple_projection" (one) vectors (N, projection_class_embeddings_input_dim), and "identity" the
    embeddings themselves, (N, width).
    """
    kind, inputs = config["class_embed_type"], config["projection_class_embeddings_input_dim"]
    if kind is None:
        return LabelEmbedding(config["num_class_embeds"], width) if config["num_class_embeds"] else None
    if kind == "timestep":
        frequencies = config["block_out_channels"][0]
        return SinusoidalEmbedding(frequencies, width, config["flip_sin_to_cos"], config["freq_shift"])
    if kind == "identity":
        return Identity()
    return TimestepEmbedding(inputs, width) if kind == "projection" else Linear(inputs, width)


def context_projection(config):
    """The Module that turns what a U-Net is given as context into (N, L, cross_attention_dim); None for none.

    encoder_hid_dim_type "text_proj" is a linear layer on tokens (N, L, encoder_hid_dim), "image_proj" 32 tokens from
    one vector (N, encoder_hid_dim).
    """
    kind, inputs, width = (config[f] for f in ("encoder_hid_dim_type", "encoder_hid_dim", "cross_attention_dim"))
    if kind is None:
        return None
    return Linear(inputs, width) if kind == "text_proj" else ImageProjection(inputs, width)
