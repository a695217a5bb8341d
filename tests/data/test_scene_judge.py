"""The judge of scenes, judged."""

import numpy as np
import pytest

from minild.data import scene_judge as judging
from minild.data.grounds import mean_ground
from minild.data.scene_judge import compare, judge, read, report
from minild.data.scenes import NAMES, Scene, Scenes, captions, emoji_at, render


@pytest.fixture(scope="module")
def drawn():
    data = Scenes("test", length=64)
    return data, [data[i] for i in range(len(data))]


def test_true_renderings_are_followed(drawn):
    data, items = drawn
    shares = report(*zip(*items), withheld=[data.withheld(i) for i in range(len(data))])
    assert min(shares.values()) == 1, shares
    assert set(shares) == {"background", "objects", "relation", "all", "withheld"}


def test_soft_and_noisy_pictures_are_read(drawn):
    rng = np.random.default_rng(0)
    _, items = drawn
    noisy = [picture / 255 + 0.12 * rng.standard_normal(picture.shape) for picture, _ in items[:16]]
    assert report(noisy, [caption for _, caption in items[:16]])["all"] == 1
    soft = [(p + np.roll(p, 1, 0) + np.roll(p, 1, 1) + np.roll(p, (1, 1), (0, 1))) / 4 for p in noisy]
    assert report(soft, [caption for _, caption in items[:16]])["all"] >= 15 / 16  # half a pixel off the places tried


def test_shuffled_captions_are_not_followed(drawn):
    _, items = drawn
    shares = report([p for p, _ in items[:20]], [c for _, c in items[20:40]])
    assert shares["all"] == 0 and shares["objects"] == 0 and shares["background"] < 0.5, shares


def test_one_wrong_word_is_noticed():
    scene = Scene(("lobster", "bus"), "above", "on the sea")
    picture, right = render(scene), captions(scene)[0]
    assert all(judge(picture, right).values())
    for word, wrong, attribute in [
        ("bus", "tram", "objects"), ("above", "below", "relation"), ("above", "left of", "relation"),
        ("on the sea", "at sunset", "background"),
    ]:
        verdict = judge(picture, right.replace(word, wrong))
        assert [name for name, ok in verdict.items() if not ok] == [attribute, "all"]


def test_gain_is_what_rendering_saves():
    """The gain formula against the definition: errors of actual renderings."""
    picture = np.random.default_rng(1).random((64, 64, 3)).astype(np.float32)
    under = np.broadcast_to(mean_ground("at sunset", 64) / 255, (64, 64, 3))
    for name, size, (top, left) in [("camel", 20, (6, 40)), ("yarn", 28, (36, 0)), ("key", 24, (0, 22))]:
        sprite, rendered = emoji_at(name, size), under.copy()
        window = rendered[top : top + size, left : left + size]
        window[:] = sprite[..., :3] + (1 - sprite[..., 3:]) * window
        saved = ((picture - under) ** 2).sum() - ((picture - rendered) ** 2).sum()
        gain = judging._gains(picture, "at sunset", size)[top // 2, left // 2, NAMES.index(name)]
        assert gain == pytest.approx(saved, rel=1e-4)


def test_the_search_is_exact():
    """The best pair is found among all pairs of places and names, looked at one by one."""
    rng = np.random.default_rng(3)
    gains = {20: rng.standard_normal((23, 23, 200)).astype(np.float32)}
    gains[20][4, 5, 7], gains[20][16, 2, 7], gains[20][20, 20, 9] = 30, 29, 28  # the two best are of one name
    for axis in (0, 1):
        found = judging._best_pair(gains, axis)
        best = max(
            (float(gains[20][a].max(axis=0)[i] if axis == 0 else gains[20][:, a].max(axis=0)[i])
             + float(gains[20][b].max(axis=0)[j] if axis == 0 else gains[20][:, b].max(axis=0)[j]), i, j)
            for a in range(23) for b in range(a + 10, 23) for i in (7, 9) for j in (7, 9) if i != j
        )
        assert found[0] == pytest.approx(best[0]) and found[1:] == best[1:]


def test_half_right_is_told_apart():
    asked = ("owl", "bus", "above", "on the sea")
    assert compare(("owl", "cat", "above", "on the sea"), asked)["relation"]
    assert not compare(("bus", "cat", "above", "on the sea"), asked)["relation"]
    assert compare(("bus", "owl", "above", "on the sea"), asked) == {
        "background": True, "objects": True, "relation": False, "all": False,
    }


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"picture.*\(64, 64, 3\).*\(32, 32, 3\)"):
        read(np.zeros((32, 32, 3)))
