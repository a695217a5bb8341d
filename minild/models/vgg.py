"""VGG: the classifier's convolutions, whose features the perceptual loss compares (Simonyan & Zisserman 2014)."""

from minild.engine import inference, run
from minild.models.model import Model
from minild.nn.layers import MAX_POOL, RELU, Conv2d
from minild.nn.module import add_gradients
from minild.ops.conv import conv2d


class VGG(Model):
    """x (N, H, W, 3) -> the feature maps of every level, a list of (N, H / 2^i, W / 2^i, widths[i]).

    A level is `depths[i]` convolutions with ReLU, and is taken after its last; max pooling stands between levels. The
    default is VGG-16 (arXiv 1409.1556, table 1, D), by the names that torchvision gives its weights; its classifier,
    which no feature needs, is passed over.
    """

    defaults = {"in_channels": 3, "widths": [64, 128, 256, 512, 512], "depths": [2, 2, 3, 3, 3]}
    only = {}

    def __init__(self, config):
        super().__init__(config)
        self.features, self.last = [], []  # last: the place of each level's last ReLU in `features`
        channels = config["in_channels"]
        for level, (width, depth) in enumerate(zip(config["widths"], config["depths"], strict=True)):
            self.features += [MAX_POOL] * (level > 0)
            for _ in range(depth):
                self.features += [Conv2d(channels, width), RELU]
                channels = width
            self.last.append(len(self.features) - 1)

    @classmethod
    def _our_key(cls, name):
        return None if name.startswith("classifier.") else super()._our_key(name)

    def forward(self, x):
        """x (N, H, W, 3), normalised as in its training -> [(N, h, w, C), ...], the finest level first."""
        caches, levels = [], []
        for place, layer in enumerate(self.features):
            x, cache = layer.forward(x)
            caches.append(cache)
            if place in self.last:
                levels.append(x)
        return levels, caches

    def backward(self, dlevels, cache, frozen=False):
        """dlevels like the feature maps, None for one that nothing came of -> dx (N, H, W, 3).

        frozen: the weights stay as they are, so their gradients, half the work, are not computed.
        """
        dlevels = list(dlevels)
        dx = dlevels.pop()
        for place in reversed(range(len(self.features))):
            layer = self.features[place]
            if frozen and isinstance(layer, Conv2d):
                dx = _input_gradient(layer, dx)
            else:
                dx = layer.backward(dx, cache[place])
            if place - 1 in self.last:
                dx = add_gradients(dx, dlevels.pop())
        return dx


def _input_gradient(conv, dy):
    """dx alone of a 3 x 3 convolution with a margin of one: the convolution of dy with the kernel turned by 180°."""
    with inference():
        return run(conv2d, dy, conv.weight.value[::-1, ::-1].swapaxes(2, 3), None, 1, 1)[0]
