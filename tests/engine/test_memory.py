"""minild.engine.memory: pieces, regions with zeros around them, workspace."""

import numpy as np
import pytest

from minild.engine import memory
from minild.engine.cores import WorkerThreads
from minild.engine.memory import map_pieces, region


@pytest.mark.parametrize("least", [1, 30])
@pytest.mark.parametrize(("N", "rows", "columns", "size"), [(7, 5, 4, 9), (3, 50, 40, 300), (1, 3, 1000, 1000)])
def test_pieces_cover_every_pixel_once(N, rows, columns, size, least):
    seen = np.zeros((N, rows, columns), int)
    for images, piece in map_pieces(N, rows, columns, size, seen, least):
        seen[images, piece] += 1
        held = seen[images, piece].size
        assert held >= min(least, rows * columns) or images.stop == N or piece.stop == rows
        assert held * size <= max(memory.PIECE, (least + columns) * size)
    assert (seen == 1).all()


def test_a_region_is_the_picture_and_zeros_around(rng):
    x = rng.standard_normal((3, 6, 5, 2))
    around = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for top, height, left, width in [(0, 6, 0, 5), (1, 3, 1, 2), (-2, 5, -1, 7), (3, 6, 2, 4), (-4, 14, -4, 13)]:
        expected = around[1:3, 4 + top : 4 + top + height, 4 + left : 4 + left + width]
        np.testing.assert_array_equal(region(x, slice(1, 3), top, height, left, width), expected)


def test_workspace_is_the_same_memory_again_within_a_thread():
    like = np.empty(0, np.float32)
    first = memory.workspace("test", (3, 4), like)
    assert first.shape == (3, 4) and first.dtype == np.float32
    assert np.shares_memory(first, memory.workspace("test", (2, 2), like))
    assert not np.shares_memory(first, memory.workspace("test 2", (3, 4), like))
    with WorkerThreads(1) as pool:
        other = pool.submit(memory.workspace, "test", (3, 4), like).result()
    assert not np.shares_memory(first, other)
