"""The autoencoder's encoder and decoder (latent diffusion paper, section 3.1 and appendix G)."""

from minild.nn.attention import AttentionBlock2D
from minild.nn.layers import Conv2d, GroupNorm
from minild.nn.module import Module
from minild.nn.resnet import Downsample2D, ResnetBlock2D, Upsample2D

EPS = 1e-6  # of every group norm in the autoencoder
RIGHT_AND_BOTTOM = ((0, 1), (0, 1))


class Chain(Module):
    """Modules one after another: the forward reads `steps()` top to bottom, the backward bottom to top."""

    def steps(self):
        raise TypeError(f"{type(self).__name__} defines no steps")

    def forward(self, x):
        """x -> y, as the class says."""
        caches = []
        for step in self.steps():
            x, cache = step.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, dy, caches):
        """dy like y -> dx like x."""
        for step, cache in zip(reversed(self.steps()), reversed(caches)):
            dy = step.backward(dy, cache)
        return dy


class TimelessResnetBlock2D(ResnetBlock2D):
    """ResnetBlock2D as the autoencoder has it, with no timestep: (N, H, W, Cin) -> (N, H, W, Cout)."""

    def backward(self, dy, cache):
        """dy (N, H, W, Cout) -> dx (N, H, W, Cin)."""
        dx, _ = super().backward(dy, cache)
        return dx


class DownEncoderBlock2D(Chain):
    """Resnets, then a downsampler unless it is the last block: (N, H, W, Cin) -> (N, H/2, W/2, Cout)."""

    def __init__(self, in_channels, out_channels, *, layers, downsample, groups):
        self.resnets = [
            TimelessResnetBlock2D(out_channels if i else in_channels, out_channels, groups=groups, eps=EPS)
            for i in range(layers)
        ]
        self.downsamplers = [Downsample2D(out_channels, RIGHT_AND_BOTTOM)] if downsample else []

    def steps(self):
        return [*self.resnets, *self.downsamplers]


class UpDecoderBlock2D(Chain):
    """Resnets, then an upsampler unless it is the last block: (N, H, W, Cin) -> (N, 2H, 2W, Cout)."""

    def __init__(self, in_channels, out_channels, *, layers, upsample, groups):
        self.resnets = [
            TimelessResnetBlock2D(out_channels if i else in_channels, out_channels, groups=groups, eps=EPS)
            for i in range(layers)
        ]
        self.upsamplers = [Upsample2D(out_channels)] if upsample else []

    def steps(self):
        return [*self.resnets, *self.upsamplers]


class UNetMidBlock2D(Chain):
    """Resnet, self-attention unless `attention` is false, resnet: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels, *, groups, attention=True):
        self.resnets = [TimelessResnetBlock2D(channels, channels, groups=groups, eps=EPS) for _ in range(2)]
        self.attentions = [AttentionBlock2D(channels, groups=groups, eps=EPS)] if attention else []

    def steps(self):
        return [self.resnets[0], *self.attentions, self.resnets[1]]


class Encoder(Chain):
    """Picture to the parameters of its latent: (N, H, W, 3) -> (N, H/f, W/f, out_channels), f = 2^(blocks - 1)."""

    def __init__(self, in_channels, out_channels, block_out_channels, *, layers, groups, mid_attention=True):
        self.conv_in = Conv2d(in_channels, block_out_channels[0])
        widths = [block_out_channels[0], *block_out_channels]
        last = len(block_out_channels) - 1
        self.down_blocks = [
            DownEncoderBlock2D(widths[i], widths[i + 1], layers=layers, downsample=i < last, groups=groups)
            for i in range(last + 1)
        ]
        self.mid_block = UNetMidBlock2D(widths[-1], groups=groups, attention=mid_attention)
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS, silu=True)
        self.conv_out = Conv2d(widths[-1], out_channels)

    def steps(self):
        return [self.conv_in, *self.down_blocks, self.mid_block, self.conv_norm_out, self.conv_out]


class Decoder(Chain):
    """Latent to picture: (N, h, w, latent_channels) -> (N, f h, f w, 3). Its blocks hold one resnet more each."""

    def __init__(self, latent_channels, out_channels, block_out_channels, *, layers, groups, mid_attention=True):
        widths = [block_out_channels[-1], *reversed(block_out_channels)]
        last = len(block_out_channels) - 1
        self.conv_in = Conv2d(latent_channels, widths[0])
        self.mid_block = UNetMidBlock2D(widths[0], groups=groups, attention=mid_attention)
        self.up_blocks = [
            UpDecoderBlock2D(widths[i], widths[i + 1], layers=layers + 1, upsample=i < last, groups=groups)
            for i in range(last + 1)
        ]
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS, silu=True)
        self.conv_out = Conv2d(widths[-1], out_channels)

    def steps(self):
        return [self.conv_in, self.mid_block, *self.up_blocks, self.conv_norm_out, self.conv_out]
