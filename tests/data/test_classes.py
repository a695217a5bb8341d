"""minild.data.classes: what a class is, and that a distorted picture keeps its own."""

import numpy as np
import pytest

from minild.data.classes import distort, load_classes
from minild.errors import UserError


@pytest.fixture(scope="module")
def classes():
    return load_classes(32)


def test_every_picture_has_a_class_and_every_class_pictures(classes):
    pictures, labels, names = classes
    assert pictures.dtype == np.uint8 and pictures.shape == (len(labels), 32, 32, 3)
    assert names == sorted(set(names)) and {"animal-bird", "circle and star", "square and square"} <= set(names)
    assert np.bincount(labels).min() > 0 and labels.max() == len(names) - 1


@pytest.mark.parametrize("size, words", [(48, "size must divide that, 48 does not"), (16, "of 32 pixels, not 16")])
def test_a_size_that_they_cannot_have_is_refused(size, words):
    with pytest.raises(UserError, match=words):
        load_classes(size)


def test_distorted_pictures_differ_each_time_and_stay_in_range(classes, rng):
    pictures = classes[0][:: len(classes[0]) // 20]
    first, second = distort(pictures, rng), distort(pictures, rng)
    assert first.dtype == np.float32 and first.shape == pictures.shape
    assert -1 <= first.min() and first.max() <= 1
    assert (np.abs(first - second).mean(axis=(1, 2, 3)) > 0.02).all()


def test_a_distortion_is_a_crop_read_between_pixels_in_other_colours(rng):
    """Of a slanted plane each channel stays a plane: its steps along rows and columns are all one (noise aside)."""
    rows, columns = np.meshgrid(np.arange(33), np.arange(40), indexing="ij")
    plane = np.repeat((100 + rows + columns)[None, ..., None], 3, axis=3).astype(np.uint8)
    planes = 0
    for _ in range(40):
        (x,) = distort(plane, rng)
        if np.abs(x).max() < 1:  # nothing was clipped
            steps = [np.diff(x, axis=axis).reshape(-1, 3) for axis in (0, 1)]
            planes += all(np.ptp(step, axis=0).max() < 1e-5 and abs(step).max() > 1e-4 for step in steps)
    assert planes >= 8  # half of them without noise, some of the rest clipped
