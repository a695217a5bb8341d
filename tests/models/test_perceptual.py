"""LPIPS, the VGG within it, and the patch discriminator: gradients, modes, names, refusals."""

import numpy as np
import pytest

from minild.errors import UserError
from minild.gradcheck import check, check_module
from minild.models import LPIPS, VGG, PatchDiscriminator
from minild.nn.layers import BatchNorm
from minild.pretrained import write_weights
from minild.weights import open_safetensors

SMALL = {"widths": [4, 6, 5], "depths": [1, 2, 1]}


def picture(rng, n=2, size=12):
    return rng.uniform(-1, 1, (n, size, size, 3))


def test_vgg_gradients(rng):
    check_module(VGG.from_config(SMALL), {"x": picture(rng)}, samples=40)


def test_frozen_vgg_gives_the_same_gradient_to_the_picture_and_none_to_the_weights(rng):
    model = VGG.from_config(SMALL).astype("float64")
    levels, cache = model.forward(picture(rng))
    dlevels = [rng.standard_normal(level.shape) for level in levels]
    dx = model.backward(dlevels, cache)
    assert all(parameter.grad.any() for parameter in model.parameters())
    model.astype("float64")  # drops the gradients
    np.testing.assert_allclose(model.backward(dlevels, cache, frozen=True), dx, atol=1e-14)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lpips_gradient(rng):
    model = LPIPS.from_config(SMALL).astype("float64")
    for head in model.heads:
        head.weight.data = rng.uniform(0.1, 1, head.weight.shape)
    other = picture(rng)

    def distance(x):
        return model.forward(x, other)

    def distance_backward(dd, cache):
        return model.backward(dd, cache)

    check(distance, distance_backward, {"x": picture(rng)}, samples=60)


def test_lpips_of_equal_pictures_is_zero_and_grows_with_the_noise(rng):
    model, x = LPIPS.from_config(SMALL).astype("float64"), picture(rng)
    noise = rng.standard_normal(x.shape)
    a, b, c = (model(x, x + level * noise) for level in (0, 0.01, 0.1))
    assert a.shape == (2,) and (a == 0).all() and (0 < b).all() and (b < c).all()
    with pytest.raises(ValueError, match=r"^y: expected the shape of x"):
        model(x, x[:1])


def test_lpips_reads_the_names_of_torchvision_and_of_the_published_heads(rng, tmp_path):
    model = LPIPS.from_config(SMALL, seed=3)
    state = {}
    for name, array in model.state_dict().items():
        part, rest = name.split(".", 1)
        if part == "vgg":
            state[rest] = array
        else:
            state[f"lin{rest.split('.')[0]}.model.1.weight"] = array[:, :, None, None]
    state["classifier.0.weight"] = rng.standard_normal((4, 5)).astype("f")
    write_weights(tmp_path / "lpips.safetensors", state)
    read = LPIPS.from_weights(SMALL, open_safetensors(tmp_path / "lpips.safetensors"), tmp_path)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(read.state_dict()[name], array)
    del state["lin1.model.1.weight"]
    write_weights(tmp_path / "lpips.safetensors", state)
    with pytest.raises(UserError, match=r"missing heads\.1\.weight"):
        LPIPS.from_weights(SMALL, open_safetensors(tmp_path / "lpips.safetensors"), tmp_path)


DISCRIMINATOR = {"width": 3, "layers": 2}


@pytest.mark.parametrize("training", [True, False])
def test_discriminator_gradients(rng, training):
    model = PatchDiscriminator.from_config(DISCRIMINATOR).train(training)
    check_module(model, {"x": picture(rng, n=3, size=16)}, samples=40)


def test_patches_of_three_layers(rng):
    """A logit sees 70 x 70 pixels: it changes with what lies there, and not beyond (batch norm's own paths aside)."""
    model = PatchDiscriminator.from_config({"width": 2}).train(False)
    x = picture(rng, n=1, size=160).astype("f")
    y = model(x)
    assert y.shape == (1, 18, 18, 1)
    seen = []
    for row in range(160):
        changed = x.copy()
        changed[:, row] += 1
        seen.append((model(changed) != y)[0, 9, 9, 0])
    assert sum(seen) == 70 and np.flatnonzero(seen)[-1] - np.flatnonzero(seen)[0] == 69


def test_the_smallest_pictures():
    """Of one pixel less nothing is left at the end."""
    patches = PatchDiscriminator.from_config({"width": 4})
    distance = LPIPS.from_config({"widths": [2] * 4, "depths": [1] * 4})
    x = np.zeros((1, patches.smallest, patches.smallest, 3), np.float32)
    assert patches.smallest == 24 and patches(x).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError):
        patches(x[:, 1:])
    x = np.zeros((1, 8, 8, 3), np.float32)
    assert distance.smallest == 8 and [level.shape[1] for level in distance.features(x)] == [8, 4, 2, 1]


def test_running_statistics_come_near_those_of_the_batches(rng):
    model = PatchDiscriminator.from_config(DISCRIMINATOR).astype("float64")
    x = picture(rng, n=8, size=16)
    for _ in range(200):
        y, cache = model.forward(x)
        before = model.state_dict()
        model.track(cache)
    assert before.keys() >= {"main.3.running_mean", "main.3.running_var"}
    np.testing.assert_allclose(model.train(False)(x), y, rtol=0.02, atol=1e-3)
    np.testing.assert_array_equal(model.train()(x), y)


def test_batch_norm_tracks_the_unbiased_variance(rng):
    layer, x = BatchNorm(3), rng.standard_normal((4, 2, 3)).astype("f")
    _, cache = layer.forward(x)
    assert (layer.running_mean.data == 0).all()  # a forward changes nothing
    layer.track(cache)
    np.testing.assert_allclose(layer.running_mean.data, 0.1 * x.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.data, 0.9 + 0.1 * x.var(axis=(0, 1), ddof=1), rtol=1e-5)


def test_a_discriminator_comes_back_from_its_folder_with_its_statistics(rng, tmp_path):
    model = PatchDiscriminator.from_config(DISCRIMINATOR, seed=1)
    model.track(model.forward(picture(rng, size=16).astype("f"))[1])
    model.save_pretrained(tmp_path)
    read = PatchDiscriminator.from_pretrained(tmp_path, dtype="float64")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(read.state_dict()[name], array)
        assert read.state_dict()[name].dtype == np.float64
