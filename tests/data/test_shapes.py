"""The shapes data set: what it draws, what it says of it, and what it keeps back."""

import numpy as np
import pytest

from minild.data import shapes
from minild.data.shapes import BACKGROUNDS, COLOURS, PAIRS, SHAPES, WITHHELD, Shapes, captions, parse, render, sprite
from minild.errors import UserError


def test_same_seed_same_picture():
    a, b = Shapes("train", seed=3), Shapes("train", seed=3)
    for i in (0, 7, 1234):
        assert a[i][0].tobytes() == b[i][0].tobytes() and a[i][1] == b[i][1]
    assert a[0][0].tobytes() != Shapes("train", seed=4)[0][0].tobytes()
    assert a[0][0].shape == (32, 32, 3) and a[0][0].dtype == np.uint8
    with pytest.raises(IndexError):
        a[len(a)]


def test_withheld_pairs_and_held_out_scenes():
    train, test = Shapes("train"), Shapes("test")
    keys = {train.scene(i).key for i in range(8000)}
    seen = {pair for key in keys for pair in key[:2]}
    assert seen == set(PAIRS) - set(WITHHELD)
    assert {s for s, _ in seen} == set(SHAPES) and {c for _, c in seen} == set(COLOURS)
    assert {key[3] for key in keys} == set(BACKGROUNDS)
    assert keys.isdisjoint(test.scene(i).key for i in range(len(test)))
    assert [i for i in range(len(test)) if test.withheld(i)] == list(range(3, len(test), 4))


@pytest.mark.parametrize("split", ["train", "test"])
def test_objects_keep_apart_and_the_relation_is_plain(split):
    data = Shapes(split, length=512)
    for i in range(len(data)):
        scene = data.scene(i)
        (ya, xa), (yb, xb) = scene.places
        a, b = (4 * s for s in scene.sizes)
        along, across = (ya + a - yb, xa + a / 2 - xb - b / 2), (xa + a - xb, ya + a / 2 - yb - b / 2)
        gap, shift = along if scene.relation == "above" else across
        assert gap <= -4 and abs(shift) <= 16
        assert min(ya, xa, yb, xb) >= 4 and max(ya + a, xa + a, yb + b, xb + b) <= 124


def test_the_caption_says_what_is_drawn():
    scene = shapes.Scene((("circle", "red"), ("square", "blue")), "above", "white")
    assert captions(scene) == (
        "a red circle above a blue square on a white background",
        "a blue square below a red circle on a white background",
    )
    picture = render(scene)
    assert tuple(picture[9, 16]) == COLOURS["red"] and tuple(picture[23, 16]) == COLOURS["blue"]
    assert tuple(picture[0, 0]) == BACKGROUNDS["white"]
    beside = shapes.Scene((("star", "orange"), ("square", "blue")), "left of", "grey", (12, 12), ((40, 12), (40, 68)))
    assert captions(beside)[0] == "an orange star left of a blue square on a grey background"
    assert captions(beside)[1] == "a blue square right of an orange star on a grey background"


def test_both_captions_mean_the_same_scene():
    data = Shapes("train", length=200)
    for i in range(len(data)):
        assert [parse(c) for c in data.captions(i)] == [data.scene(i).key] * 2
    first = sum(data[i][1] == data.captions(i)[0] for i in range(len(data)))
    assert 70 <= first <= 130
    with pytest.raises(UserError, match="not a caption"):
        parse("a brown dog")


def test_draw_equals_one_by_one():
    data = Shapes("test")
    pictures, both = data.draw(range(8))
    assert all((pictures[i] == data[i][0]).all() and data[i][1] in both[i] for i in range(8))


def test_larger_pictures_are_the_same_scene():
    small, large = Shapes("train", length=20), Shapes("train", size=64, length=20)
    for i in range(20):
        halved = large[i][0].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - small[i][0]).mean() < 4


def test_shapes_differ_and_sprites_move():
    for a in SHAPES:
        for b in SHAPES:
            if a != b:
                assert np.abs(sprite(a, 10, 0, 0) - sprite(b, 10, 0, 0)).sum() > 12
    assert sprite("square", 10, 0, 0)[:10, :10].min() == 1 and sprite("square", 10, 0, 0)[10].max() == 0
    assert sprite("square", 10, 1, 0)[0, 0] == 0.75 and sprite("square", 10, 1, 0)[10, 0] == 0.25


@pytest.mark.parametrize("wrong", [{"split": "dev"}, {"size": 30}, {"size": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(UserError):
        Shapes(**wrong)
