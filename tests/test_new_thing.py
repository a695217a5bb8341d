"""tests.benchmarks.new_thing: the pictures that a LoRA learns from, and what is measured of its drawings."""

import numpy as np
import pytest
from benchmarks.new_thing import main, measure, scenes_with, write_pictures

from minild import data
from minild.data.scenes import NAMES, captions, render
from minild.errors import UserError


def test_every_scene_has_the_thing_and_another(tmp_path):
    scenes = scenes_with("koala", 6, 0)
    assert all(("koala" in scene.objects) and set(scene.objects) & set(NAMES) for scene in scenes)
    assert {scene.objects.index("koala") for scene in scenes} == {0, 1}
    assert scenes_with("koala", 6, 1) != scenes
    write_pictures(tmp_path, scenes)
    read = data.load(tmp_path, size=64)
    assert [read[i][1] for i in range(6)] == [captions(scene)[0] for scene in scenes]
    np.testing.assert_array_equal(read[3][0], render(scenes[3]))


def test_true_drawings_are_followed_and_others_are_not():
    scenes = scenes_with("koala", 3, 0)
    drawn, keys = np.stack([render(scene) for scene in scenes]), [scene.key for scene in scenes]
    found = measure(drawn, keys, "koala")
    assert (found["followed"], found["there"]) == (1, 1) and found["interval"][0] < 0.9
    others = np.stack([data.load("scenes", "test")[i][0] for i in range(3)])
    assert [measure(others, keys, "koala")[name] for name in ("followed", "there")] == [0, 0]


def test_a_thing_of_the_data_set_is_no_new_one():
    with pytest.raises(UserError, match="unknown thing 'lobster': use one of koala, pineapple"):
        main(["--thing", "lobster"])
