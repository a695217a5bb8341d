"""The U-Net's blocks: down, middle, up; with cross-attention or without.

Down blocks leave a skip after every resnet (and its transformer) and after the downsampler; up blocks take them from
the last to the first.
"""

from minild.backend import get_array_module
from minild.nn.attention import Transformer2DModel
from minild.nn.module import Module, add_gradients
from minild.nn.resnet import Downsample2D, ResnetBlock2D, Upsample2D


class DownBlock2D(Module):
    """`layers` resnets, then a downsampler unless `downsample` is false.

    x (N, H, W, Cin), temb (N, T) -> y, and the list of skips.
    """

    has_attention = False

    def __init__(
        self,
        in_channels,
        out_channels,
        *,
        temb_channels,
        layers,
        downsample,
        groups=32,
        eps=1e-5,
        heads=None,
        context_width=None,
        linear_projection=False,
        only_cross=False,
    ):
        self.resnets = [
            ResnetBlock2D(
                out_channels if i else in_channels, out_channels, temb_channels=temb_channels, groups=groups, eps=eps
            )
            for i in range(layers)
        ]
        self.attentions = [
            Transformer2DModel(
                out_channels,
                heads,
                context_width,
                groups=groups,
                linear_projection=linear_projection,
                only_cross=only_cross,
            )
            for _ in range(layers if self.has_attention else 0)
        ]
        self.downsamplers = [Downsample2D(out_channels)] if downsample else []

    def forward(self, x, temb, context):
        """x (N, H, W, Cin), temb (N, T), context (N, Lk, Dc) -> y (N, H/2, W/2, Cout), skips.

        Half of an odd number is rounded up. Without a downsampler y keeps H and W.
        """
        skips, resnets, attentions, down = [], [], [], None
        for i, resnet in enumerate(self.resnets):
            x, cache = resnet.forward(x, temb)
            resnets.append(cache)
            if self.attentions:
                x, cache = self.attentions[i].forward(x, context)
                attentions.append(cache)
            skips.append(x)
        if self.downsamplers:
            x, down = self.downsamplers[0].forward(x)
            skips.append(x)
        return (x, skips), (resnets, attentions, down)

    def backward(self, dy, cache):
        """dy = (dy like y, dskips like the skips) -> dx, dtemb, dcontext (None without attention)."""
        resnets, attentions, down = cache
        dy, dskips = dy[0], list(dy[1])
        dtemb = dcontext = None
        if self.downsamplers:
            dy = self.downsamplers[0].backward(dy + dskips.pop(), down)
        for i in reversed(range(len(self.resnets))):
            dy = dy + dskips.pop()
            if self.attentions:
                dy, d = self.attentions[i].backward(dy, attentions[i])
                dcontext = add_gradients(dcontext, d)
            dy, d = self.resnets[i].backward(dy, resnets[i])
            dtemb = add_gradients(dtemb, d)
        return dy, dtemb, dcontext


class CrossAttnDownBlock2D(DownBlock2D):
    """DownBlock2D with a transformer after every resnet; context (N, Lk, Dc)."""

    has_attention = True


class UNetMidBlock2DCrossAttn(Module):
    """Resnet, transformer, resnet at the lowest resolution: x (N, H, W, C) -> y (N, H, W, C)."""

    def __init__(
        self, channels, *, temb_channels, heads, context_width, groups=32, eps=1e-5, linear_projection=False
    ):
        self.resnets = [
            ResnetBlock2D(channels, channels, temb_channels=temb_channels, groups=groups, eps=eps) for _ in range(2)
        ]
        self.attentions = [
            Transformer2DModel(channels, heads, context_width, groups=groups, linear_projection=linear_projection)
        ]

    def forward(self, x, temb, context):
        """x (N, H, W, C), temb (N, T), context (N, Lk, Dc) -> y (N, H, W, C)."""
        x, first = self.resnets[0].forward(x, temb)
        x, attention = self.attentions[0].forward(x, context)
        x, second = self.resnets[1].forward(x, temb)
        return x, (first, attention, second)

    def backward(self, dy, cache):
        """dy (N, H, W, C) -> dx, dtemb, dcontext."""
        first, attention, second = cache
        dx, dtemb = self.resnets[1].backward(dy, second)
        dx, dcontext = self.attentions[0].backward(dx, attention)
        dx, d = self.resnets[0].backward(dx, first)
        return dx, add_gradients(dtemb, d), dcontext


class UpBlock2D(Module):
    """Resnets on [x, skip], one skip each, the last skip first; then an upsampler unless `upsample` is false.

    x (N, H, W, C), temb (N, T), skips: as many maps as resnets -> y. `skip_channels` lists their widths in the order
    in which they are used.
    """

    has_attention = False

    def __init__(
        self,
        in_channels,
        skip_channels,
        out_channels,
        *,
        temb_channels,
        upsample,
        groups=32,
        eps=1e-5,
        heads=None,
        context_width=None,
        linear_projection=False,
        only_cross=False,
    ):
        self.resnets = [
            ResnetBlock2D(width + skip, out_channels, temb_channels=temb_channels, groups=groups, eps=eps)
            for width, skip in zip([in_channels, *[out_channels] * len(skip_channels)], skip_channels)
        ]
        self.attentions = [
            Transformer2DModel(
                out_channels,
                heads,
                context_width,
                groups=groups,
                linear_projection=linear_projection,
                only_cross=only_cross,
            )
            for _ in range(len(skip_channels) if self.has_attention else 0)
        ]
        self.upsamplers = [Upsample2D(out_channels)] if upsample else []

    def forward(self, x, skips, temb, context, size=None):
        """x (N, H, W, C), skips, temb (N, T), context (N, Lk, Dc) -> y (N, 2H, 2W, Cout) or (N, H, W, Cout).

        size: (height, width) of y where it is upsampled to meet a skip of an odd height or width; None doubles both.
        """
        xp = get_array_module(x)
        skips = list(skips)
        resnets, attentions, widths, up = [], [], [], None
        for i, resnet in enumerate(self.resnets):
            widths.append(x.shape[-1])
            x, cache = resnet.forward(xp.concatenate([x, skips.pop()], axis=-1), temb)
            resnets.append(cache)
            if self.attentions:
                x, cache = self.attentions[i].forward(x, context)
                attentions.append(cache)
        if self.upsamplers:
            x, up = self.upsamplers[0].forward(x, size)
        return x, (resnets, attentions, widths, up)

    def backward(self, dy, cache):
        """dy like y -> dx, dskips in the skips' own order, dtemb, dcontext (None without attention)."""
        resnets, attentions, widths, up = cache
        dskips = []
        dtemb = dcontext = None
        if self.upsamplers:
            dy = self.upsamplers[0].backward(dy, up)
        for i in reversed(range(len(self.resnets))):
            if self.attentions:
                dy, d = self.attentions[i].backward(dy, attentions[i])
                dcontext = add_gradients(dcontext, d)
            dboth, d = self.resnets[i].backward(dy, resnets[i])
            dtemb = add_gradients(dtemb, d)
            dy, dskip = dboth[..., : widths[i]], dboth[..., widths[i] :]
            dskips.append(dskip)
        return dy, dskips, dtemb, dcontext


class CrossAttnUpBlock2D(UpBlock2D):
    """UpBlock2D with a transformer after every resnet; context (N, Lk, Dc)."""

    has_attention = True


DOWN_BLOCKS = {"DownBlock2D": DownBlock2D, "CrossAttnDownBlock2D": CrossAttnDownBlock2D}
UP_BLOCKS = {"UpBlock2D": UpBlock2D, "CrossAttnUpBlock2D": CrossAttnUpBlock2D}
