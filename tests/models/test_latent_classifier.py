"""LatentClassifier: its gradients by differences, what it is told, and its folder."""

import numpy as np
import pytest
from training.small import drawn

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import LatentClassifier

CONFIG = {
    "in_channels": 3,
    "classes": ["cat", "dog", "bird"],
    "block_out_channels": [8, 12],
    "norm_num_groups": 4,
}


@pytest.fixture
def classifier():
    return drawn(LatentClassifier.from_config(CONFIG), "float64")


def inputs(rng):
    return {"x": rng.standard_normal((2, 5, 6, 3)), "t": np.array([3.75, 612.25])}


def test_gradients(rng):
    check_module(LatentClassifier.from_config(CONFIG), inputs(rng), samples=4)
    check_module(LatentClassifier.from_config(CONFIG | {"block_out_channels": [8]}), inputs(rng), samples=2)


def test_the_gradient_of_the_log_probability(rng, classifier):
    x, t = inputs(rng).values()
    labels = np.array([2, 0])

    def log_probability(x):
        logits = classifier(x, t)
        return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[[0, 1], labels]

    value, gradient = classifier.log_probability(x, t, labels)
    assert value == pytest.approx(log_probability(x).sum(), rel=1e-10)
    direction = rng.standard_normal(x.shape)
    for i in range(2):  # each picture's own: the other does not come into it
        ahead, behind = (log_probability(x + step * direction)[i] for step in (1e-5, -1e-5))
        assert (gradient[i] * direction[i]).sum() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)
    assert all(parameter.grad is None for parameter in classifier.parameters())  # it leaves no trace


def test_it_is_told_how_noisy_the_latents_are(rng, classifier):
    x, t = inputs(rng).values()
    assert abs(classifier(x, t) - classifier(x, t[::-1].copy())).max() > 1e-3


def test_its_folder(tmp_path, rng, classifier):
    classifier.save_pretrained(tmp_path, "float64")
    again = LatentClassifier.from_pretrained(tmp_path, "float64")
    assert again.config["classes"] == CONFIG["classes"]
    same = inputs(rng)
    np.testing.assert_array_equal(again(**same), classifier(**same))
    with pytest.raises(UserError, match="norm_num_groups = 5 does not divide the width 8"):
        LatentClassifier.from_config(CONFIG | {"norm_num_groups": 5})
