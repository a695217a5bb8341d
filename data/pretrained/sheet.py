"""Draw data/pretrained/sheet.png: what the two shipped pipelines draw, beside the real pictures.

    python data/pretrained/sheet.py

Rows in pairs: a caption's real picture above, the drawn one below it. The emoji are chosen at random, the shapes are
the first held-out test scenes; seed 0 throughout.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from minild import data, pipelines

COLUMNS, ENLARGED, GAP = 16, 2, 2
EMOJI_ROWS, SHAPES_ROWS = 3, 1


def pairs(name, indices, split):
    """(rows of real pictures, rows of drawn ones), each (len(indices), 32, 32, 3) uint8."""
    dataset, pipeline = data.load(name, split), pipelines.load(name)
    real, captions = zip(*(dataset[int(i)] for i in indices))
    drawn = pipeline.text_to_image(captions, guidance_scale=pipeline.guidance_scale, progress=True)
    return np.stack(real), np.round(drawn * 255).astype(np.uint8)


def main():
    emoji = np.random.default_rng(0).choice(1377, EMOJI_ROWS * COLUMNS, replace=False)
    rows = []
    for name, indices, split in (("emoji", emoji, "train"), ("shapes", range(SHAPES_ROWS * COLUMNS), "test")):
        real, drawn = pairs(name, indices, split)
        for start in range(0, len(real), COLUMNS):
            rows += [real[start : start + COLUMNS], drawn[start : start + COLUMNS]]
    side = rows[0].shape[1] * ENLARGED
    height = sum(side + (GAP if i % 2 == 0 else 4 * GAP) for i in range(len(rows)))
    sheet = Image.new("RGB", (COLUMNS * (side + GAP), height), "white")
    y = 0
    for i, row in enumerate(rows):
        for column, picture in enumerate(row):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (side + GAP), y))
        y += side + (GAP if i % 2 == 0 else 4 * GAP)
    sheet.save(Path(__file__).with_name("sheet.png"), optimize=True)


if __name__ == "__main__":
    main()
