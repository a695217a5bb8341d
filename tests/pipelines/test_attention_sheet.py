"""minild.pipelines.attention_sheet: the picture, and each word's map laid over it."""

import numpy as np
import pytest
from PIL import Image

from minild.pipelines import attention_sheet
from minild.pipelines.attention_sheet import COLOURS, DARKEST, coloured, draw_attention_sheet, overlaid

FAINTEST, STRONGEST = attention_sheet.FAINTEST, attention_sheet.STRONGEST


def test_colours_go_from_dark_to_light():
    shades = coloured(np.linspace(0, 1, 101))
    assert np.all(np.diff(shades @ [0.3, 0.6, 0.1]) > 0)  # in grey, too
    np.testing.assert_allclose(coloured(np.array([[0, 0.1, 1]])), [[COLOURS[0], COLOURS[:2].mean(0), COLOURS[-1]]])


def test_a_map_lies_over_the_grey_picture():
    picture, map_ = np.zeros((2, 2, 3)), np.array([[0.1, 0.3], [0.2, 0.1]])
    picture[0, 1] = 0, 0.6, 0.9
    tile = overlaid(picture, map_)
    grey = DARKEST + (1 - DARKEST) * np.array([0, 0.5])
    np.testing.assert_allclose(tile[0, 0], (1 - FAINTEST) * grey[0] + FAINTEST * COLOURS[0])
    np.testing.assert_allclose(tile[0, 1], (1 - STRONGEST) * grey[1] + STRONGEST * COLOURS[-1])
    half = (FAINTEST + STRONGEST) / 2
    np.testing.assert_allclose(tile[1, 0], (1 - half) * grey[0] + half * coloured(np.array(0.5)))
    np.testing.assert_array_equal(overlaid(picture, np.full((2, 2), 0.3)), overlaid(picture, np.zeros((2, 2))))


@pytest.mark.parametrize(("size", "tile"), [((32, 32), (160, 160)), ((40, 52), (120, 156)), ((640, 320), (320, 160))])
def test_a_sheet_has_the_picture_and_a_tile_for_each_word(tmp_path, size, tile):
    picture = np.full((*size, 3), 0.2)
    maps = np.zeros((7, *size), np.float32)
    maps[3, :, size[1] // 2 :] = 0.5
    draw_attention_sheet(tmp_path / "sheet.png", picture, "what was asked for", [*"abcdefg"], maps)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    height, width = tile
    row = sheet.shape[0] // 2
    assert row > height + 10 and sheet.shape[1] == 6 * (width + 8)
    corners = [(y, x) for y in (4, row + 4) for x in range(4, sheet.shape[1], width + 8)]
    tiles = [sheet[y : y + height, x : x + width] for y, x in corners]
    assert (tiles[0] == 51).all() and (tiles[8] == 255).all()
    left, right = tiles[4][:, : width // 2 - 2], tiles[4][:, width // 2 + 2 :]
    assert right.min() > 100 and np.ptp(right, axis=(0, 1)).max() == 0 == np.ptp(left, axis=(0, 1)).max()
    assert (tiles[3] == left[0, 0]).all() and abs(right[0, 0].astype(int) - left[0, 0]).max() > 100
