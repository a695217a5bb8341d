"""ResnetBlock2D, and the blocks that change the resolution by two."""

from minild.nn.layers import SILU, UPSAMPLE, Conv2d, GroupNorm, Linear
from minild.nn.module import Module
from minild.ops.conv import pad


class ResnetBlock2D(Module):
    """y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time_emb_proj(silu(temb))))).

    x (N, H, W, Cin), temb (N, T) -> y (N, H, W, Cout). temb is None where there are no temb_channels. The shortcut is a
    1 x 1 convolution where Cin ≠ Cout.
    """

    def __init__(self, in_channels, out_channels, *, temb_channels=None, groups=32, eps=1e-5):
        self.norm1 = GroupNorm(groups, in_channels, eps, silu=True)
        self.conv1 = Conv2d(in_channels, out_channels)
        self.time_emb_proj = Linear(temb_channels, out_channels) if temb_channels else None
        self.norm2 = GroupNorm(groups, out_channels, eps, silu=True)
        self.conv2 = Conv2d(out_channels, out_channels)
        changes = in_channels != out_channels
        self.conv_shortcut = Conv2d(in_channels, out_channels, kernel_size=1, padding=0) if changes else None

    def forward(self, x, temb=None):
        """x (N, H, W, Cin), temb (N, T) or None -> y (N, H, W, Cout)."""
        h, norm1 = self.norm1.forward(x)
        h, conv1 = self.conv1.forward(h)
        act_t = proj_t = None
        if self.time_emb_proj:
            t, act_t = SILU.forward(temb)
            t, proj_t = self.time_emb_proj.forward(t)
            h = h + t[:, None, None, :]
        h, norm2 = self.norm2.forward(h)
        h, conv2 = self.conv2.forward(h)
        residual, shortcut = self.conv_shortcut.forward(x) if self.conv_shortcut else (x, None)
        return h + residual, (norm1, conv1, act_t, proj_t, norm2, conv2, shortcut)

    def backward(self, dy, cache):
        """dy (N, H, W, Cout) -> dx (N, H, W, Cin), dtemb (N, T) or None."""
        norm1, conv1, act_t, proj_t, norm2, conv2, shortcut = cache
        dresidual = self.conv_shortcut.backward(dy, shortcut) if self.conv_shortcut else dy
        dh = self.conv2.backward(dy, conv2)
        dh = self.norm2.backward(dh, norm2)
        dtemb = None
        if self.time_emb_proj:
            dt = self.time_emb_proj.backward(dh.sum(axis=(1, 2)), proj_t)
            dtemb = SILU.backward(dt, act_t)
        dh = self.conv1.backward(dh, conv1)
        dh = self.norm1.backward(dh, norm1)
        return dh + dresidual, dtemb


class Downsample2D(Module):
    """A 3 x 3 convolution at stride 2: (N, H, W, C) -> (N, H/2, W/2, C).

    `padding` is 1 in the U-Net, where half of an odd H is rounded up; the autoencoder pads one pixel at the right and
    the bottom only, ((0, 1), (0, 1)).
    """

    def __init__(self, channels, padding=1):
        self.conv = Conv2d(channels, channels, stride=2, padding=padding)

    def forward(self, x):
        """x (N, H, W, C) -> y (N, H/2, W/2, C)."""
        return self.conv.forward(x)

    def backward(self, dy, cache):
        """dy (N, H/2, W/2, C) -> dx (N, H, W, C)."""
        return self.conv.backward(dy, cache)


class Upsample2D(Module):
    """Nearest x 2, then a 3 x 3 convolution: (N, H, W, C) -> (N, 2H, 2W, C).

    To meet a skip of an odd height, 2H - 1, the last of the doubled rows is left out; likewise of columns. What is left
    is the nearest neighbour still: row i shows row floor(i H / (2H - 1)) = floor(i / 2).
    """

    def __init__(self, channels):
        self.conv = Conv2d(channels, channels)

    def forward(self, x, size=None):
        """x (N, H, W, C) -> y (N, 2H, 2W, C), or (N, *size, C): size is 2H or 2H - 1, and 2W or 2W - 1."""
        h, up = UPSAMPLE.forward(x)
        left_out = None
        if size not in (None, h.shape[1:3]):
            left_out = (0, h.shape[1] - size[0]), (0, h.shape[2] - size[1])
            h = h[:, : size[0], : size[1]]
        h, conv = self.conv.forward(h)
        return h, (up, left_out, conv)

    def backward(self, dy, cache):
        """dy like y -> dx (N, H, W, C)."""
        up, left_out, conv = cache
        dh = self.conv.backward(dy, conv)
        if left_out:
            dh = pad(dh, left_out)  # what was left out gets no gradient
        return UPSAMPLE.backward(dh, up)
