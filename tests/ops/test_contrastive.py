"""The contrastive loss: by hand, by its definition, and its gradients."""

import math

import numpy as np
import pytest

from minild.gradcheck import check
from minild.ops.contrastive import contrastive, contrastive_backward


def test_two_pairs_by_hand():
    """Pictures along the axes, captions turned by 30 and by -20 degrees: four cosines, four cross-entropies."""
    images = np.array([[2.0, 0.0], [0.0, 0.5]])
    angles = np.radians([30, 70])
    texts = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scale = 4.0
    a, b = scale * np.cos(np.radians(30)), scale * np.cos(np.radians(70))  # picture 0 with either caption
    c, d = scale * np.cos(np.radians(60)), scale * np.cos(np.radians(20))
    row = [math.log(1 + math.exp(b - a)), math.log(1 + math.exp(c - d))]
    column = [math.log(1 + math.exp(c - a)), math.log(1 + math.exp(b - d))]
    loss, _ = contrastive(images, texts, np.array(math.log(scale)))
    assert float(loss) == pytest.approx(sum(row + column) / 4, rel=1e-12)


def test_gradients(rng):
    inputs = {
        "images": rng.standard_normal((5, 4)),
        "texts": 3 * rng.standard_normal((5, 4)),
        "logit_scale": np.array(1.3),
    }
    check(contrastive, contrastive_backward, inputs)


def test_the_length_of_an_embedding_does_not_count(rng):
    images, texts = rng.standard_normal((2, 6, 3))
    lengths = rng.uniform(0.1, 9, (6, 1))
    first, cache = contrastive(images, texts, np.array(2.0))
    assert float(contrastive(images * lengths, texts, np.array(2.0))[0]) == pytest.approx(float(first), rel=1e-12)
    dimages, dtexts, dscale = contrastive_backward(1.0, cache)
    assert isinstance(dscale, np.ndarray) and dscale.shape == ()  # which a parameter can add to and set to zero
    np.testing.assert_allclose((dimages * images).sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((dtexts * texts).sum(axis=1), 0, atol=1e-12)


def test_an_embedding_of_zero_divides_nothing_by_zero():
    loss, cache = contrastive(np.zeros((2, 3), "f"), np.eye(2, 3, dtype="f"), np.float32(1))
    assert float(loss) == pytest.approx(math.log(2))
    assert all(np.isfinite(gradient).all() for gradient in contrastive_backward(1.0, cache))


@pytest.mark.parametrize(
    ("images", "texts", "scale", "named"),
    [((2, 3, 4), (2, 3, 4), (), "images"), ((2, 3), (3, 3), (), "texts"), ((2, 3), (2, 3), (1,), "logit_scale")],
)
def test_a_wrong_shape_is_named(images, texts, scale, named):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        contrastive(np.ones(images), np.ones(texts), np.ones(scale))
