"""LPIPS: how different two pictures look (Zhang et al. 2018, arXiv 1801.03924)."""

from typing import Any, NamedTuple

import numpy as np

from minild.backend import device_of, to_device
from minild.engine import inference, run
from minild.models.model import Model
from minild.models.vgg import VGG
from minild.nn.layers import Linear
from minild.ops.norm import unit_norm

SHIFT = (-0.030, -0.088, -0.188)  # pictures in [-1, 1] -> the scale on which torchvision's VGG was trained
SCALE = (0.458, 0.448, 0.450)


class LevelCache(NamedTuple):
    difference: Any  # of the two unit-normalised feature maps
    norm: Any


class LPIPSCache(NamedTuple):
    levels: list
    vgg: Any


class LPIPS(Model):
    """d(x, y) = Σ_l mean over the pixels of Σ_c w_lc (f̂_lc(x) - f̂_lc(y))²: pictures (N, H, W, 3) in [-1, 1] -> d (N,).

    f̂_l are the features of VGG's level l, each pixel's scaled to length one (equation 1 of the paper); w_l are the
    learned heads, all ones for a network without. The weights stay as they are: the gradient goes into x alone.
    """

    defaults = VGG.defaults
    only = VGG.only

    def __init__(self, config):
        super().__init__(config)
        self.vgg = VGG(config)
        self.heads = [Linear(width, 1, bias=False, init=1.0) for width in config["widths"]]

    @classmethod
    def _our_key(cls, name):
        """Beside our own names those of torchvision's VGG-16, and of LPIPS's heads as published."""
        part, _, rest = name.partition(".")
        if part.startswith("lin") and rest == "model.1.weight":
            return f"heads.{part[3:]}.weight"
        return None if part == "classifier" else f"vgg.{name}" if part == "features" else super()._our_key(name)

    @property
    def smallest(self):
        """The least side, in pixels, of a picture of which the coarsest level still has a feature."""
        return 2 ** (len(self.config["widths"]) - 1)

    def features(self, x):
        """A picture's feature maps, of every level (see VGG), x (N, H, W, 3) in [-1, 1]."""
        return self.vgg(_normalised(x))

    def forward(self, x, y):
        """Pictures x and y (N, H, W, 3) in [-1, 1] -> d (N,). Raises ValueError where their shapes differ."""
        if x.shape != y.shape:
            raise ValueError(f"y: expected the shape of x, {x.shape}, got {y.shape}")
        levels, vgg = self.vgg.forward(_normalised(x))
        others = self.features(y)
        d, caches = 0, []
        for head, features, other in zip(self.heads, levels, others):
            unit, norm = run(unit_norm, features)
            with inference():
                unit_other, _ = run(unit_norm, other)
            difference = unit - unit_other
            d = d + (difference * difference * head.weight.value[:, 0]).sum(axis=-1).mean(axis=(1, 2))
            caches.append(LevelCache(difference, norm))
        return d, LPIPSCache(caches, vgg)

    def backward(self, dd, cache):
        """dd (N,) -> dx (N, H, W, 3)."""
        dlevels = []
        for head, level in zip(self.heads, cache.levels):
            N, h, w, _ = level.difference.shape
            upstream = (dd / (h * w)).reshape(N, 1, 1, 1)
            dunit = 2 * upstream * head.weight.value[:, 0] * level.difference
            dlevels.append(level.norm.backward(dunit))
        dx = self.vgg.backward(dlevels, cache.vgg, frozen=True)
        return dx / _like(SCALE, dx)


def _normalised(x):
    return (x - _like(SHIFT, x)) / _like(SCALE, x)


def _like(numbers, x):
    """Three numbers as an array of the dtype and on the device of x."""
    return to_device(np.array(numbers, x.dtype), device_of(x))
