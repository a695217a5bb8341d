"""The patch discriminator of the autoencoder's adversarial loss (PatchGAN: Isola et al. 2016, arXiv 1611.07004)."""

from minild.models.model import Model
from minild.nn.layers import LEAKY_RELU, BatchNorm, Conv2d

WIDEST = 8  # times the first width


class PatchDiscriminator(Model):
    """Pictures (N, H, W, 3) -> a logit for each patch (N, h, w, 1), large where the patch looks real.

    4 x 4 convolutions: `layers` of stride 2, each twice as wide as the one before, and two of stride 1; between them
    batch norm, but not after the first, and leaky ReLU. With three layers a patch is 70 x 70 pixels. The names of its
    weights are those of the published code.
    """

    defaults = {"in_channels": 3, "width": 64, "layers": 3}
    only = {}

    def __init__(self, config):
        super().__init__(config)
        width, layers = config["width"], config["layers"]
        self.main = [_conv(config["in_channels"], width, stride=2), LEAKY_RELU]
        for level in range(1, layers + 1):
            before, after = (width * min(2**i, WIDEST) for i in (level - 1, level))
            self.main += [_conv(before, after, stride=2 if level < layers else 1, bias=False), _norm(after), LEAKY_RELU]
        self.main.append(_conv(after, 1, stride=1))

    @property
    def smallest(self):
        """The least side, in pixels, of a picture that has a patch: two convolutions of stride 1 take one each."""
        return 3 * 2 ** self.config["layers"]

    def forward(self, x):
        """x (N, H, W, 3) in [-1, 1] -> logits (N, h, w, 1)."""
        caches = []
        for layer in self.main:
            x, cache = layer.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, dy, cache):
        """dy like the logits -> dx (N, H, W, 3)."""
        for layer, mine in zip(reversed(self.main), reversed(cache), strict=True):
            dy = layer.backward(dy, mine)
        return dy

    def track(self, cache):
        """Move the running statistics of every batch norm towards the batch whose forward left `cache`."""
        for layer, mine in zip(self.main, cache, strict=True):
            if isinstance(layer, BatchNorm):
                layer.track(mine)

    def train(self, training=True):
        """Normalise by the batch's own statistics, or, for False, by the running ones. -> self."""
        for layer in self.main:
            if isinstance(layer, BatchNorm):
                layer.training = training
        return self


def _conv(in_channels, out_channels, stride, bias=True):
    return Conv2d(in_channels, out_channels, kernel_size=4, stride=stride, bias=bias, init=("normal", 0.02))


def _norm(channels):
    return BatchNorm(channels, init=("normal", 0.02, 1.0))
