"""What the outlines tell of a shape, measured: how many true ones are accepted, and how many spoilt ones refused."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from minild.data.judge import compare, look
from minild.data.shapes import BACKGROUNDS, BASE, COLOURS, SUB, Scene, Shapes, render, sprite
from minild.data.silhouettes import covers, overlaps, silhouettes
from minild.evaluation import rebuild
from minild.pipelines import load

FINE = 4  # a spoilt shape is drawn on a grid as much finer than the quarter pixels

SQUARE, TRIANGLE = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]), np.array([(0.5, 0), (1, 1), (0, 1)])


def superellipse(power):
    """|x|^p + |y|^p = 1, in the unit square: 1 is a diamond, 2 a circle, and more goes towards a square."""
    turn = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    c, s = np.cos(turn), np.sin(turn)
    return 0.5 + 0.5 * np.stack([c, s], axis=1) * ((abs(c) ** power + abs(s) ** power) ** (-1 / power))[:, None]


def in_box(corners):
    """Corners, moved and stretched to fill the unit square."""
    return (corners - corners.min(axis=0)) / np.ptp(corners, axis=0)


def star(inner):
    """A five-pointed star, `inner` as wide inside as outside. A true one has 0.45."""
    turns = np.arange(10) * np.pi / 5
    return in_box(np.stack([np.sin(turns), -np.cos(turns)], axis=1) * np.tile([1, inner], 5)[:, None])


def wavy(corners, depth, waves):
    """Every edge in waves: `depth` of the width in and out."""
    t = np.linspace(0, 1, 40, endpoint=False)[:, None]
    edges = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0)):
        (x, y), length = end - start, np.linalg.norm(end - start)
        edges.append(start + t * (end - start) + depth * np.sin(2 * np.pi * waves * t) * np.array([y, -x]) / length)
    return in_box(np.concatenate(edges))


def rounded(corners, radius):
    """A convex outline, its corners rounded by arcs of that radius, in widths."""
    edges, middle = np.roll(corners, -1, axis=0) - corners, corners.mean(axis=0)
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1)[:, None]
    distances = ((corners - middle) * normals).sum(axis=1) - radius
    t, arcs = np.linspace(0, 1, 12)[:, None], []
    for k in range(len(corners)):
        centre = middle + np.linalg.solve(normals[[k - 1, k]], distances[[k - 1, k]])
        towards = (1 - t) * normals[k - 1] + t * normals[k]
        arcs.append(centre + radius * towards / np.linalg.norm(towards, axis=1, keepdims=True))
    return np.concatenate(arcs)


def turned(corners, degrees):
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return in_box((corners - 0.5) @ turn)


REFUSED = {
    "a diamond": ("circle", superellipse(1)),
    "nearly a diamond": ("circle", superellipse(1.15)),
    "a square with round corners": ("circle", superellipse(4)),
    "a flat circle": ("circle", superellipse(2) * (1, 0.8)),
    "a wavy square": ("square", wavy(SQUARE, 0.07, 1.5)),
    "a square of long waves": ("square", wavy(SQUARE, 0.06, 1)),
    "a turned square": ("square", turned(SQUARE, 10)),
    "a flat square": ("square", SQUARE * (1, 0.8)),
    "a rounded triangle": ("triangle", rounded(TRIANGLE, 0.2)),
    "a turned triangle": ("triangle", turned(TRIANGLE, 15)),
    "a triangle on its head": ("triangle", 1 - TRIANGLE),
    "a wavy triangle": ("triangle", wavy(TRIANGLE, 0.08, 1)),
    "a star with hardly any points": ("star", star(0.75)),
    "a flat star": ("star", star(0.45) * (1, 0.7)),
    "a star on its head": ("star", 1 - star(0.45)),
}
PASSED = {  # honest limits: what a quarter of a pixel cannot tell
    "a hexagon": ("circle", superellipse(2)[::40]),
    "leaning towards a diamond": ("circle", superellipse(1.5)),
    "a triangle a little rounded": ("triangle", rounded(TRIANGLE, 0.1)),
}


def cover(corners, size, oy, ox):
    """As shapes.sprite draws, any outline in the unit square: (size+1, size+1)."""
    fine, side = SUB * FINE, size * SUB * FINE
    canvas = Image.new("L", ((size + 1) * fine,) * 2)
    at = corners * side + (ox * FINE - 0.5, oy * FINE - 0.5)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in at], fill=1)
    return np.asarray(canvas, np.float32).reshape(size + 1, fine, size + 1, fine).mean(axis=(1, 3))


def drawn_with(scene, corners):
    """The scene with its first object of another outline -> (32, 32, 3) in [0, 1]."""
    picture = np.empty((BASE, BASE, 3), np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    for k, ((shape, colour), size, (top, left)) in enumerate(zip(scene.objects, scene.sizes, scene.places)):
        (y, oy), (x, ox) = divmod(top, SUB), divmod(left, SUB)
        m = (cover(corners, size, oy, ox) if k == 0 else sprite(shape, size, oy, ox))[:, :, None]
        window = picture[y : y + len(m), x : x + len(m)]
        window += m * (np.array(COLOURS[colour], np.float32) - window)
    return picture / 255


def spoilt(shape, corners, count):
    """Scenes of the test split whose first object is such a shape, drawn with other corners -> (scene, picture)."""
    data = Shapes("test")
    for i in range(count):
        scene = data.scene(i)
        scene = dataclasses.replace(scene, objects=((shape, scene.objects[0][1]), scene.objects[1]))
        yield scene, drawn_with(scene, corners)


def accepted(pictures, scenes):
    """The share of the scenes that their pictures are read as, and the least IoU of any object."""
    read = [look(picture) for picture in pictures]
    share = np.mean([compare(found.key, scene.key)["all"] for found, scene in zip(read, scenes)])
    return share, min(min(found.outline) for found in read)


@pytest.mark.parametrize("count", [40, pytest.param(512, marks=pytest.mark.slow)])
def test_true_drawings_are_accepted(count):
    """All of the test split's."""
    data = Shapes("test")
    share, least = accepted([data[i][0] for i in range(count)], [data.scene(i) for i in range(count)])
    assert share == 1 and least > 0.98


@pytest.mark.parametrize("count", [40, pytest.param(512, marks=pytest.mark.slow)])
def test_true_drawings_with_noise_are_accepted(count):
    """Of a standard deviation of 5 % of the range."""
    data, rng = Shapes("test"), np.random.default_rng(0)
    noisy = [data[i][0] / 255 + 0.05 * rng.standard_normal((BASE, BASE, 3)) for i in range(count)]
    assert accepted(noisy, [data.scene(i) for i in range(count)])[0] >= 0.99


@pytest.mark.parametrize("count", [60, pytest.param(512, marks=pytest.mark.slow)])
def test_what_the_shipped_autoencoder_rebuilds_is_accepted(count):
    """What its decoder loses of an outline is too little to be refused."""
    data = Shapes("test", length=count)
    rebuilt, scenes = rebuild(load("shapes").vae, data.draw(range(count))[0]), [data.scene(i) for i in range(count)]
    assert accepted(rebuilt, scenes)[0] >= 0.99


@pytest.mark.parametrize("name", REFUSED)
def test_spoilt_shapes_are_refused(name):
    shape, corners = REFUSED[name]
    for scene, picture in spoilt(shape, corners, 6):
        found = look(picture)
        verdict = compare(found.key, scene.key)
        assert not verdict["shapes"] and not verdict["all"], (name, found)
        assert verdict["background"] and verdict["colours"], (name, found)


@pytest.mark.slow
def test_spoilt_shapes_are_refused_wherever_they_are():
    """Of 64 of each."""
    for name, (shape, corners) in REFUSED.items():
        share = np.mean([compare(look(p).key, scene.key)["all"] for scene, p in spoilt(shape, corners, 64)])
        assert share <= 0.01, (name, share)


@pytest.mark.parametrize("name", PASSED)
def test_the_smallest_faults_pass(name):
    shape, corners = PASSED[name]
    assert np.mean([compare(look(p).key, scene.key)["all"] for scene, p in spoilt(shape, corners, 6)]) > 0.5


def test_soft_edges_and_a_tint_are_no_other_shape():
    """Blurred by half a pixel, and a little paler."""
    data = Shapes("test")
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 0.5**2))
    weights /= weights.sum()
    soft = []
    for i in range(20):
        picture = np.pad(data[i][0] / 255, ((3, 3), (3, 3), (0, 0)), mode="edge")
        for axis in (0, 1):
            picture = np.lib.stride_tricks.sliding_window_view(picture, 7, axis=axis) @ weights
        soft.append(0.95 * picture + 0.02)
    assert accepted(soft, [data.scene(i) for i in range(20)])[0] == 1


def test_iou_by_hand():
    """An oblong of 12 by 10 pixels beside the best of squares: 11 x 10 in common, of 12 x 10 + 11 x 11 - 11 x 10."""
    oblong = np.zeros((BASE, BASE), np.float32)
    oblong[10:22, 8:18] = 1
    found = overlaps(oblong, (64, 52))
    assert found["square"] == pytest.approx(110 / 131, abs=1e-2)  # corners lose a quarter of a pixel
    assert max(found, key=found.get) == "square"


def test_a_silhouette_is_where_the_cover_is_a_half():
    covers = np.zeros((1, 4, 4))
    covers[0, 1:3, 1:3] = [[1, 0.4], [1, 0.4]]
    found = silhouettes(covers)[0]
    across = found[8]  # a row of quarters through the middle of the cover, or nearly
    assert found.shape == (16, 16) and across.tolist() == [0] * 4 + [1] * 5 + [0] * 7


def test_each_object_has_a_cover_of_its_own():
    scene = Scene((("circle", "red"), ("circle", "pink")), "left of", "white", (12, 12), ((40, 12), (48, 64)))
    picture = render(scene).astype(np.float32) / 255
    first, second = covers(picture, scene)
    assert first[:, 16:].max() == 0 and second[:, :15].max() == 0
    assert first[16, 9] == pytest.approx(1, abs=1e-2) and second[18, 22] == pytest.approx(1, abs=1e-2)
    assert first.sum() == pytest.approx(sprite("circle", 12, 0, 0).sum(), rel=1e-2)
