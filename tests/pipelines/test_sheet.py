"""minild.pipelines.sheet: pictures over their labels."""

import numpy as np
from PIL import Image

from minild.pipelines.sheet import GAP, TILE, draw_sheet, label_height

LABEL = label_height(TILE)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def cell(sheet, row, column):
    """The picture's and the label's part of a sheet."""
    y, x = row * (TILE + LABEL + 8) + 4, column * (TILE + 8) + 4
    return sheet[y : y + TILE, x : x + TILE], sheet[y + TILE : y + TILE + LABEL + 8, x - 4 : x + TILE + 4]


def ink(label):
    """Rows, and columns, where something is drawn."""
    dark = label.min(axis=2) < 200
    return np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))


LONGEST = "a purple triangle right of an orange triangle on a white background"


def test_a_sheet_shows_each_picture_over_its_label(tmp_path):
    pictures = np.zeros((5, 4, 4, 3))
    pictures[:, 1, 2] = [[0.2 * i, 1, 0] for i in range(5)]
    draw_sheet(tmp_path / "sheet.png", pictures, ["short", LONGEST, "gjpqy " * 40, "w" * 60, ""], columns=3)
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (2 * (TILE + LABEL + 8), 3 * (TILE + 8), 3)
    for i in range(5):
        picture, label = cell(sheet, *divmod(i, 3))
        blocks = picture.reshape(4, TILE // 4, 4, TILE // 4, 3)
        assert np.array_equal(blocks.min(axis=(1, 3)), np.round(pictures[i] * 255))  # no label over it
        assert np.array_equal(blocks.max(axis=(1, 3)), np.round(pictures[i] * 255))
        if i < 4:
            rows, columns = ink(label)
            assert len(rows) > 5 and 4 <= columns.min() and columns.max() < TILE + 4  # no wider than the picture
    assert (cell(sheet, 1, 1)[1] == 255).all()
    assert (cell(sheet, 1, 2)[0] == 255).all()


def test_a_label_wraps(tmp_path):
    def height(text):
        draw_sheet(tmp_path / "sheet.png", np.ones((1, 4, 4, 3)), [text], columns=1)
        rows, _ = ink(pixels(tmp_path / "sheet.png")[TILE + 4 :])
        return np.ptp(rows)

    one, two, all_of_it = height("square"), height("a square left of a square"), height(LONGEST)
    assert two > one + 8
    assert all_of_it > two + 16  # four lines, the last of them whole
    assert height(LONGEST + " and more of the same, again and again") <= all_of_it + 1


def test_tiles_keep_the_shape_of_their_pictures_and_labels_grow_with_them(tmp_path):
    draw_sheet(tmp_path / "sheet.png", np.zeros((2, 4, 6, 3)), ["one", "two"], 2, tile=(160, 240))
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (160 + label_height(240) + GAP, 2 * (240 + GAP), 3)
    assert (sheet[4:164, 4:244] == 0).all() and (sheet[:4] == 255).all()
    draw_sheet(tmp_path / "small.png", np.zeros((1, 4, 4, 3)), ["one"], 1)
    small, large = pixels(tmp_path / "small.png")[TILE + 5 :], sheet[165:, :248]
    assert np.ptp(ink(large)[1]) > 1.7 * np.ptp(ink(small)[1])
