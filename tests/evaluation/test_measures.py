"""Measures of sets: small cases written out, and values known from elsewhere."""

import numpy as np
import pytest
from models.tiny import VQ

from minild.evaluation import codebook_use, codes, precision_recall, wilson_interval
from minild.models import VQModel


def test_precision_and_recall_of_points_on_a_line():
    """k = 1: a ball reaches to the nearest other: of 0, 1, 3, 10 by 1, 1, 2, 7; of 2, 2.5, 30 by 0.5, 0.5, 27.5."""
    real, drawn = np.array([[0.0], [1], [3], [10]]), np.array([[2.0], [2.5], [30]])
    precision, recall = precision_recall(real, drawn, k=1)
    assert precision == pytest.approx(2 / 3)  # 30 is in no ball
    assert recall == pytest.approx(2 / 4)  # 3 is in that of 2.5, and 10 in that of 30


def test_precision_and_recall_are_their_definition(rng):
    real, drawn = rng.standard_normal((40, 3)), 0.7 * rng.standard_normal((25, 3)) + 0.8

    def share_within(queries, members, k=3):
        reach = [np.sort(np.linalg.norm(members - member, axis=1))[k] for member in members]  # [0] is itself
        return np.mean([(np.linalg.norm(members - query, axis=1) <= reach).any() for query in queries])

    precision, recall = precision_recall(real, drawn)
    assert precision == pytest.approx(share_within(drawn, real))
    assert recall == pytest.approx(share_within(real, drawn))
    assert 0 < recall < precision < 1


def test_the_same_pictures_have_all_and_far_ones_none(rng):
    real = rng.standard_normal((20, 5))
    assert precision_recall(real, real[::-1]) == (1, 1)
    assert precision_recall(real, real + 1000) == (0, 0)
    collapsed = real[:1] + 1e-3 * rng.standard_normal((20, 5))  # near one real picture: precise, and nothing else
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1 and recall <= 0.05
    with pytest.raises(ValueError, match=r"drawn: expected shape \(N, C\) with more than k = 3 rows, got \(3, 5\)"):
        precision_recall(real, real[:3])


def test_precision_and_recall_in_pieces(rng, monkeypatch):
    from minild.evaluation import measures

    real, drawn = rng.standard_normal((30, 4)), rng.standard_normal((17, 4))
    whole = precision_recall(real, drawn)
    monkeypatch.setattr(measures, "NUMBERS", 200)
    assert precision_recall(real, drawn) == whole


@pytest.mark.parametrize(  # the last: Newcombe 1998, table I, method 3; of none, z²/(n + z²)
    ("right", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (5, 10, 0.2365931, 0.7634069), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(right, count, low, high):
    assert wilson_interval(right / count, count) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_nothing_has_no_interval():
    with pytest.raises(ValueError, match="of at least one trial"):
        wilson_interval(0.5, 0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        wilson_interval(1.5, 3)


def test_codebook_use():
    assert codebook_use(np.array([[0, 1], [2, 3]]), 8) == (0.5, pytest.approx(4))
    assert codebook_use(np.full(9, 3), 4) == (0.25, pytest.approx(1))
    half, quarter = 0.5**-0.5, 0.25**-0.25  # p^-p
    assert codebook_use([0, 0, 1, 2], 3) == (1, pytest.approx(half * quarter**2))


def test_codes_are_the_nearest_of_the_codebook(rng, monkeypatch):
    from minild import evaluation

    vae = VQModel.from_config(VQ)
    pictures = rng.integers(0, 256, (5, 8, 6, 3), np.uint8)
    z, codebook = vae.encode(pictures / np.float32(127.5) - 1), vae.quantize.embedding.weight.data
    expected = ((z[..., None, :] - codebook) ** 2).sum(axis=-1).argmin(axis=-1)
    monkeypatch.setattr(evaluation.pictures, "PIXELS", 2 * 48)
    np.testing.assert_array_equal(codes(vae, pictures), expected)
    assert expected.shape == (5, 4, 3)
    with pytest.raises(ValueError, match="vae: expected a VQModel"):
        codes(None, pictures)
