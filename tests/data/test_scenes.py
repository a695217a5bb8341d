"""The scenes data set: what it draws, what it says of it, and what it keeps back."""

import numpy as np
import pytest

from minild.data import scenes
from minild.data.emoji import sprites
from minild.data.grounds import GROUNDS, TILE, draw_ground, mean_ground
from minild.data.scenes import NAMES, NEW, SIZES, WITHHELD, Scene, Scenes, captions, emoji_at, parse, render
from minild.errors import UserError


def test_same_seed_same_picture():
    a, b = Scenes("train", seed=3), Scenes("train", seed=3)
    for i in (0, 7, 1234):
        assert a[i][0].tobytes() == b[i][0].tobytes() and a[i][1] == b[i][1]
    assert a[0][0].tobytes() != Scenes("train", seed=4)[0][0].tobytes()
    assert a[0][0].shape == (64, 64, 3) and a[0][0].dtype == np.uint8


def test_withheld_pairs_and_held_out_scenes():
    assert len(set(NAMES)) == 200 and set(NAMES) <= set(sprites()) and frozenset(("lobster", "bus")) in WITHHELD
    train, test = Scenes("train"), Scenes("test")
    keys = {train.scene(i).key for i in range(6000)}
    assert set(NEW) <= set(sprites()) and not set(NEW) & set(NAMES)
    assert not {frozenset(key[:2]) for key in keys} & WITHHELD
    assert {name for key in keys for name in key[:2]} == set(NAMES) and {key[3] for key in keys} == set(GROUNDS)
    assert keys.isdisjoint(test.scene(i).key for i in range(len(test)))
    assert [i for i in range(len(test)) if test.withheld(i)] == list(range(3, len(test), 4))
    orders = [NAMES.index(test.scene(i).objects[0]) < 100 for i in range(3, len(test), 4)]
    assert 40 <= sum(orders) <= 88  # either of a withheld pair comes first


@pytest.mark.parametrize("split", ["train", "test"])
def test_emoji_keep_apart_and_the_relation_is_plain(split):
    data = Scenes(split, length=512)
    for i in range(len(data)):
        scene = data.scene(i)
        (ya, xa), (yb, xb) = scene.places
        a, b = scene.sizes
        along, across = (ya + a - yb, xa + a / 2 - xb - b / 2), (xa + a - xb, ya + a / 2 - yb - b / 2)
        gap, shift = along if scene.relation == "above" else across
        assert gap <= -8 and abs(shift) <= 20 < (a + b) / 2  # along the relation apart, across it not
        assert not any(number % 8 for number in (ya, xa, yb, xb, a, b))
        assert min(ya, xa, yb, xb) >= 0 and max(ya + a, xa + a, yb + b, xb + b) <= 64


def test_the_caption_says_what_is_drawn():
    scene = Scene(("owl", "ear of corn"), "left of", "in the night sky", (32, 24), ((8, 0), (16, 40)))
    assert captions(scene) == (
        "an owl left of an ear of corn in the night sky",
        "an ear of corn right of an owl in the night sky",
    )
    picture = render(scene) / 255
    under = draw_ground(scene.ground, 64, 0, 0) / 255
    expected = under.clip(0, 1)
    for name, size, (top, left) in zip(scene.objects, scene.sizes, scene.places):
        sprite = emoji_at(name, size)
        here = expected[top : top + size, left : left + size]
        here[:] = sprite[..., :3] + (1 - sprite[..., 3:]) * here
    assert np.abs(picture - expected).max() <= 1 / 255
    assert np.abs(picture - under.clip(0, 1)).max() > 0.3


def test_both_captions_mean_the_same_scene():
    data = Scenes("train", length=200)
    for i in range(len(data)):
        assert [parse(c) for c in data.captions(i)] == [data.scene(i).key] * 2
    assert parse("A  LOBSTER above a bus on the sea") == ("lobster", "bus", "above", "on the sea")
    assert parse("a christmas tree below an owl at sunset") == ("owl", "Christmas tree", "above", "at sunset")


@pytest.mark.parametrize(
    "wrong",
    ["a bus", "a bus above a bus on the sea", "a unicycle above a bus on the sea", "a lobster above a bus on the moon"],
)
def test_what_is_no_caption_of_scenes(wrong):
    with pytest.raises(UserError, match="not a caption of scenes"):
        parse(wrong)


def test_an_emoji_fills_its_square_and_has_soft_edges():
    for name in NAMES[::20]:
        for size in SIZES:
            sprite = emoji_at(name, size)
            covered = [np.flatnonzero(sprite[..., 3].max(axis=axis) > 0.1) for axis in (0, 1)]
            assert sprite.shape == (size, size, 4) and max(np.ptp(rows) + 1 for rows in covered) >= size - 2, name
            assert (sprite[..., :3] <= sprite[..., 3:] + 0.02).all(), name  # colours are times opacity
    assert not emoji_at("bus", 24).flags.writeable


def test_textures_join_at_the_tile_s_edges_and_keep_the_mean():
    for ground in GROUNDS:
        whole = draw_ground(ground, 64, 0, 0)
        assert np.array_equal(draw_ground(ground, 64, TILE, TILE), whole)
        assert np.abs(whole.mean(axis=(0, 1)) - mean_ground(ground, 64).mean(axis=(0, 1))).max() < 8, ground
        textured = not np.array_equal(draw_ground(ground, 64, 5, 9), whole)
        assert textured == (not ground.endswith("background"))


def test_larger_pictures_are_the_same_scene():
    small, large = Scenes("train", length=20), Scenes("train", size=128, length=20)
    for i in range(20):
        halved = large[i][0].reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert large.scene(i) == small.scene(i)
        assert np.abs(halved.mean(axis=(0, 1)) - small[i][0].mean(axis=(0, 1))).max() < 8


@pytest.mark.parametrize("wrong", [{"split": "dev"}, {"size": 32}, {"size": 100}])
def test_wrong_arguments(wrong):
    with pytest.raises(UserError):
        scenes.Scenes(**wrong)
