"""VGG-16, LPIPS and the patch discriminator against PyTorch models of the same random weights, written out here.

Forward and gradients: 1e-5 in float32, 1e-10 in float64, of the largest value.
"""

import numpy as np
import pytest

from minild.models import LPIPS, VGG, PatchDiscriminator
from parity.reference import channels_first, channels_last, torch

nn = torch.nn
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
# VGG-16 (its channels eighths, for speed) level by level, and a network of another form
CONFIGS = {
    "vgg16": {"widths": [8, 16, 32, 64, 64], "depths": [2, 2, 3, 3, 3]},
    "small": {"widths": [5, 7], "depths": [1, 2]},
}


class TheirVGG(nn.Module):
    """torchvision's `features`, and the maps after the last ReLU of each level."""

    def __init__(self, widths, depths):
        super().__init__()
        layers, self.taps, channels = [], [], 3
        for level, (width, depth) in enumerate(zip(widths, depths)):
            layers += [nn.MaxPool2d(2)] * (level > 0)
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)

    def forward(self, x):
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps


def their_lpips(vgg, heads, x, y):
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=x.dtype)[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=x.dtype)[:, None, None]
    total = 0
    for a, b, head in zip(vgg((x - shift) / scale), vgg((y - shift) / scale), heads):
        a, b = (f / ((f**2).sum(1, keepdim=True).sqrt() + 1e-10) for f in (a, b))
        total = total + nn.functional.conv2d((a - b) ** 2, head).mean(dim=(1, 2, 3))
    return total


def their_discriminator(width, layers):
    main = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n in range(1, layers + 1):
        before, after = width * min(2 ** (n - 1), 8), width * min(2**n, 8)
        convolution = nn.Conv2d(before, after, 4, 2 if n < layers else 1, 1, bias=False)
        main += [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*main, nn.Conv2d(after, 1, 4, 1, 1))


def assert_near(ours, theirs, dtype, name):
    theirs = theirs if isinstance(theirs, np.ndarray) else theirs.detach().numpy()
    assert ours.shape == theirs.shape, name
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error <= TOLERANCE[dtype], f"{name}: off by {error:.2g}"


def assert_same_gradients(ours, theirs, dtype):
    gradients = ours.gradient_dict()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, dtype, name)


def vgg_pair(config, dtype):
    theirs = TheirVGG(**config).to(getattr(torch, dtype))
    ours = VGG.from_config(config).astype(dtype)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def picture(rng, dtype, n=2, size=32):
    x = rng.uniform(-1, 1, (n, size, size, 3)).astype(dtype)
    return x, channels_first(x).requires_grad_()


@DTYPES
@pytest.mark.parametrize("name", CONFIGS)
def test_vgg(rng, name, dtype):
    torch.manual_seed(0)
    ours, theirs = vgg_pair(CONFIGS[name], dtype)
    x, their_x = picture(rng, dtype)
    levels, cache = ours.forward(x)
    maps = theirs(their_x)
    dlevels = [rng.standard_normal(level.shape).astype(dtype) for level in levels]
    for level, feature_map in zip(levels, maps, strict=True):
        assert_near(level, channels_last(feature_map), dtype, "a level")
    sum((m * channels_first(d)).sum() for m, d in zip(maps, dlevels)).backward()
    assert_near(ours.backward(dlevels, cache), channels_last(their_x.grad), dtype, "dx")
    assert_same_gradients(ours, theirs, dtype)


@DTYPES
@pytest.mark.parametrize("name", CONFIGS)
def test_lpips(rng, name, dtype):
    torch.manual_seed(1)
    config = CONFIGS[name]
    _, vgg = vgg_pair(config, dtype)
    heads = [torch.rand(1, width, 1, 1, dtype=getattr(torch, dtype)) for width in config["widths"]]
    ours = LPIPS.from_config(config).astype(dtype)
    state = {f"vgg.{key}": value.numpy() for key, value in vgg.state_dict().items()}
    ours.load_state_dict(state | {f"heads.{i}.weight": head.numpy() for i, head in enumerate(heads)})
    (x, their_x), (y, their_y) = picture(rng, dtype), picture(rng, dtype)
    d, cache = ours.forward(x, y)
    theirs = their_lpips(vgg, heads, their_x, their_y)
    assert_near(d, theirs, dtype, "d")
    dd = np.array([1.5, -0.5], dtype)
    theirs.backward(torch.from_numpy(dd))
    assert_near(ours.backward(dd, cache), channels_last(their_x.grad), dtype, "dx")


@DTYPES
@pytest.mark.parametrize(("width", "layers"), [(8, 3), (4, 4), (6, 1)])
def test_discriminator(rng, width, layers, dtype):
    torch.manual_seed(2)
    theirs = their_discriminator(width, layers).to(getattr(torch, dtype))
    ours = PatchDiscriminator.from_config({"width": width, "layers": layers}).astype(dtype)

    def load():
        state = theirs.state_dict().items()
        ours.load_state_dict({f"main.{k}": v.numpy().copy() for k, v in state if not k.endswith("num_batches_tracked")})

    load()
    x, their_x = picture(rng, dtype, n=3, size=64)
    y, cache = ours.forward(x)
    their_y = theirs(their_x)
    assert_near(y, channels_last(their_y), dtype, "logits")
    dy = rng.standard_normal(y.shape).astype(dtype)
    their_y.backward(channels_first(dy))
    assert_near(ours.backward(dy, cache), channels_last(their_x.grad), dtype, "dx")
    for name, parameter in theirs.named_parameters():
        assert_near(ours.gradient_dict()[f"main.{name}"], parameter.grad, dtype, name)
    ours.track(cache)
    for name, value in theirs.state_dict().items():
        if "running" in name:
            assert_near(ours.state_dict()[f"main.{name}"], value, dtype, name)
    load()
    assert_near(ours.train(False)(x), channels_last(theirs.eval()(their_x)), dtype, "logits in inference")
