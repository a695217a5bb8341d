"""The judge of caption faithfulness, judged."""

import dataclasses
import itertools

import numpy as np
import pytest

from minild.data import judge as judging
from minild.data.judge import compare, judge, look, nearest, read, report
from minild.data.shapes import BASE, SHAPES, SIZES, SUB, Scene, Shapes, _places, captions, parse, render


@pytest.fixture(scope="module")
def drawn():
    data = Shapes("test", length=120)
    return data, [data[i] for i in range(len(data))]


def test_true_renderings_are_followed(drawn):
    data, items = drawn
    shares = report(*zip(*items), withheld=[data.withheld(i) for i in range(len(data))])
    assert min(shares.values()) >= 0.99, shares
    assert shares.keys() == {*judging.ATTRIBUTES, "withheld", *judging.MEANS}


def test_both_captions_are_accepted(drawn):
    data, items = drawn
    for i in range(20):
        assert [judge(items[i][0], caption)["all"] for caption in data.captions(i)] == [True, True]


def test_soft_and_noisy_pictures_are_read(drawn):
    rng = np.random.default_rng(0)
    _, items = drawn
    noisy = [picture / 255 + 0.08 * rng.standard_normal(picture.shape) for picture, _ in items[:100]]
    assert report(noisy, [caption for _, caption in items[:100]])["all"] >= 0.97


def test_shuffled_captions_are_near_chance(drawn):
    _, items = drawn
    shown = [parse(caption) for _, caption in items]
    found = [read(picture) for picture, _ in items[:100]]
    verdicts = [compare(found[i], asked) for i in range(100) for j, asked in enumerate(shown) if j != i]
    share = {name: np.mean([v[name] for v in verdicts]) for name in judging.ATTRIBUTES}
    assert share["all"] < 0.003 and share["shapes"] < 0.2 and share["colours"] < 0.08, share
    assert abs(share["background"] - 1 / 3) < 0.05 and 0.2 < share["relation"] < 0.5, share


def test_one_wrong_word_is_noticed():
    scene = Scene((("circle", "red"), ("square", "blue")), "above", "white")
    picture = render(scene)
    right = captions(scene)[0]
    assert all(judge(picture, right).values())
    for word, wrong, attribute in [
        ("red", "pink", "colours"), ("circle", "star", "shapes"), ("above", "below", "relation"),
        ("above", "left of", "relation"), ("white", "grey", "background"),
    ]:
        verdict = judge(picture, right.replace(word, wrong))
        assert [name for name, ok in verdict.items() if not ok] == [attribute, "all"]
    swapped = judge(picture, "a blue circle above a red square on a white background")
    assert swapped["shapes"] and swapped["colours"] and not swapped["all"]


def test_gain_is_what_rendering_saves():
    """The gain formula against the definition: errors of actual renderings."""
    rng = np.random.default_rng(1)
    picture = rng.random((BASE, BASE, 3)).astype(np.float32)
    scene = Scene((("star", "pink"), ("circle", "cyan")), "left of", "grey", (11, 10), ((41, 6), (38, 75)))
    fit = judging._Fit(picture, {s: judging._correlate(picture, s) for s in SIZES}, "grey")
    gain = 0
    for (shape, colour), size, (top, left) in zip(scene.objects, scene.sizes, scene.places):
        gain += fit.gains[size][list(judging.COLOURS).index(colour), SHAPES.index(shape), top, left]
    error = ((picture - render(scene) / 255) ** 2).sum()
    assert fit.error - gain == pytest.approx(error, rel=2e-3)  # render rounds to 8 bits


def test_the_search_is_exact():
    """Best-first with a bound finds what looking at every pair does."""
    rng = np.random.default_rng(2)
    picture = rng.random((BASE, BASE, 3)).astype(np.float32) * 0.3 + 0.7 * Shapes("train")[5][0] / 255
    correlations = {s: judging._correlate(picture, s) for s in SIZES}
    best = min(
        (fit.error - fit.pair(a, b, relation), (judging._object(a), judging._object(b), relation, fit.background))
        for fit in [judging._Fit(picture, correlations, "white"), judging._Fit(picture, correlations, "grey"),
                    judging._Fit(picture, correlations, "black")]
        for a, b in itertools.permutations(range(32), 2)
        for relation in ("above", "left of")
    )
    assert judging._nearest(picture).key == best[1]


def test_the_nearest_true_drawing_of_a_caption(drawn):
    """Of a true drawing it is that; of any other picture, no true drawing of the caption is nearer."""
    data, items = drawn
    for i in range(20):
        np.testing.assert_array_equal(nearest(*items[i]), items[i][0])
    rng = np.random.default_rng(3)
    for i in range(3):
        picture = np.clip(items[i][0] / 255 + 0.2 * rng.standard_normal((BASE, BASE, 3)), 0, 1)
        asked = data.scene(i + 20)
        least = ((picture - nearest(picture, captions(asked)[1]) / 255) ** 2).sum()
        for _ in range(300):
            sizes = tuple(rng.choice(SIZES, 2).tolist())
            other = dataclasses.replace(asked, sizes=sizes, places=_places(asked.relation, sizes, rng.random(5)))
            assert ((picture - render(other) / 255) ** 2).sum() > least - 1e-2  # render rounds to 8 bits


def test_the_scene_of_a_pair_has_its_gain_and_a_place_that_scenes_have():
    """Within the margins, a gap apart, and in line: of noise, whose best places are anywhere."""
    rng = np.random.default_rng(4)
    picture = rng.random((BASE, BASE, 3)).astype(np.float32)
    fit = judging._Fit(picture, judging._correlations(picture), "grey")
    for first, second in rng.permutation(32).reshape(-1, 2):
        for along, relation in enumerate(("above", "left of")):
            scene = fit.scene(first, second, relation)
            error = ((picture - render(scene) / 255) ** 2).sum()
            assert error == pytest.approx(fit.error - fit.pair(first, second, relation), rel=2e-3)
            ends = [[start + SUB * size for start in place] for place, size in zip(scene.places, scene.sizes)]
            assert min(map(min, scene.places)) >= SUB and max(map(max, ends)) <= SUB * (BASE - 1)
            assert scene.places[1][along] - ends[0][along] >= SUB
            middles = [place[1 - along] + SUB * size // 2 for place, size in zip(scene.places, scene.sizes)]
            assert abs(middles[0] - middles[1]) <= 4 * SUB


def test_what_is_no_shape_has_no_name():
    """A star whose points are gone is read as red, where it is, and as nothing; and the outlines' mean tells of it."""
    scene = Scene((("star", "red"), ("square", "blue")), "above", "white")
    picture = render(scene)
    assert look(picture).outline == (1, 1)
    y, x = np.indices((BASE, BASE))
    picture[(np.hypot(y - 9, x - 16) > 4) & (y < 16)] = 255
    found = look(picture)
    assert found.key == ((None, "red"), ("square", "blue"), "above", "white") and found.outline[0] < 0.8
    verdict = judge(picture, captions(scene)[0])
    assert [name for name, ok in verdict.items() if not ok] == ["shapes", "all"]
    assert report([picture], captions(scene)[:1])["outline"] == pytest.approx(np.mean(found.outline))


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"picture.*\(32, 32, 3\).*\(16, 16, 3\)"):
        read(np.zeros((16, 16, 3)))
