"""tests.benchmarks.tasks: what is asked of the scenes that are changed, and how a drawing is measured."""

import numpy as np
import pytest
from benchmarks.tasks import Cases, drawing, main

from minild import data
from minild.errors import UserError


@pytest.fixture(params=["shapes", "scenes"])
def dataset(request):
    return data.load(request.param, "test", {"shapes": 32, "scenes": 64}[request.param])


def test_one_object_is_another_and_stands_where_the_old_one_did(dataset):
    cases = Cases(dataset, 6, 0)
    for i, (before, after) in enumerate(zip(cases.before, cases.after)):
        same = [a == b for a, b in zip(before.objects, after.objects)]
        assert sorted(same) == [False, True] and (before.sizes, before.places) == (after.sizes, after.places)
        changed = abs(drawing(dataset).render(after).astype(int) - cases.pictures[i]).max(axis=-1) > 0
        assert changed.any() and not (changed & ~cases.masks[i]).any()  # the mask covers what is to change
        assert not cases.masks[i][cases.kept[i]].any()


def test_the_true_drawing_is_followed_and_keeps_the_other_object(dataset):
    cases = Cases(dataset, 4, 0)
    truth = np.stack([drawing(dataset).render(scene) for scene in cases.after]) / 255
    found = cases.measure(dataset, truth)
    low, high = found.pop("interval")
    assert found == {"followed": 1, "kept": 1, "layout": 1} and low < 0.9 < high
    found = cases.measure(dataset, cases.pictures / 255)
    assert (found["followed"], found["kept"]) == (0, 1)
    found = cases.measure(dataset, np.roll(truth, 8, axis=(1, 2)))
    assert found["kept"] < 1 and found["layout"] < 1


def test_an_unknown_task():
    with pytest.raises(UserError, match="unknown task 'paint': use inpaint, img2img, edit, p2p"):
        main(["--tasks", "paint"])
