"""Outlines: where they are, and where not."""

import numpy as np

from minild.data.outlines import outlines


def white(picture):
    """Where the outlines of one picture (H, W, 3) are, (H, W) of booleans."""
    drawn = outlines(picture[None])
    assert drawn.shape == (1, *picture.shape) and drawn.dtype == np.uint8 and set(np.unique(drawn)) <= {0, 255}
    assert (drawn == drawn[..., :1]).all()
    return drawn[0, :, :, 0] == 255


def test_the_outline_of_a_square():
    picture = np.full((12, 9, 3), 255, np.uint8)
    picture[3:8, 2:7] = 20, 20, 200
    around, inside = np.zeros((12, 9), bool), np.zeros((12, 9), bool)
    around[2:9, 1:8], inside[4:7, 3:6] = True, True
    np.testing.assert_array_equal(white(picture), around & ~inside)


def test_a_step_in_one_channel_is_enough_and_a_small_one_is_none():
    for step, seen in ((200, True), (60, True), (20, False)):
        for channel in range(3):
            picture = np.full((6, 7, 3), 30, np.uint8)
            picture[:, 4:, channel] += step
            np.testing.assert_array_equal(white(picture), np.full((6, 1), seen) & np.isin(np.arange(7), (3, 4)))
            picture = picture.transpose(1, 0, 2)
            np.testing.assert_array_equal(white(picture).T, np.full((6, 1), seen) & np.isin(np.arange(7), (3, 4)))


def test_nothing_has_no_outline():
    assert not white(np.full((5, 4, 3), 200, np.uint8)).any()


def test_a_diagonal_is_as_steep_as_a_straight_line():
    """A gradient of the same contrast each way: 40 of 255 on a diagonal step counts by its length."""
    picture = np.where(np.add.outer(np.arange(8), np.arange(8)) > 7, 90, 30)[..., None].repeat(3, -1).astype(np.uint8)
    found = white(picture)
    assert found[3, 4] and found[4, 3] and found[4, 4] and not found[0, 0] and not found[7, 7]
