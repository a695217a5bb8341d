"""Layers (an op plus its parameters) and the blocks that Stable Diffusion is built of."""

from minild.nn.attention import Attention, BasicTransformerBlock, FeedForward, Transformer2DModel
from minild.nn.layers import Conv2d, Embedding, GroupNorm, LayerNorm, Linear, Stateless
from minild.nn.module import Module, Parameter
from minild.nn.resnet import Downsample2D, ResnetBlock2D, Upsample2D

__all__ = [
    "Attention",
    "BasicTransformerBlock",
    "Conv2d",
    "Downsample2D",
    "Embedding",
    "FeedForward",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "ResnetBlock2D",
    "Stateless",
    "Transformer2DModel",
    "Upsample2D",
]
