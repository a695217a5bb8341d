"""Draw data/pretrained/sheet.png: what the shipped pipelines draw, beside the real pictures.

    python data/pretrained/sheet.py

Rows in pairs: a caption's real picture above, the drawn one below it. The scenes are held-out ones of emoji that never
met in training, the first of the test set; the emoji are chosen at random, the shapes are the first held-out test
scenes; seed 0 throughout.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from minild import data, pipelines

WIDTH, ENLARGED, GAP = 1056, 2, 2  # in pixels; every picture is twice as large as it was drawn
COLUMNS = {"scenes": 8, "emoji": 16, "shapes": 16}
ROWS = {"scenes": 2, "emoji": 2, "shapes": 1}  # pairs of rows


def chosen(name, dataset, count):
    """Which pictures of the data set are shown."""
    if name == "emoji":
        return np.random.default_rng(0).choice(len(dataset), count, replace=False)
    return [i for i in range(len(dataset)) if name != "scenes" or dataset.withheld(i)][:count]


def pairs(name):
    """(real pictures, drawn ones) of a pipeline, a row each, in turns: arrays (columns, H, W, 3) uint8."""
    pipeline, columns = pipelines.load(name), COLUMNS[name]
    dataset = data.load(name, "train" if name == "emoji" else "test", pipeline.record["size"])
    real, captions = zip(*(dataset[int(i)] for i in chosen(name, dataset, ROWS[name] * columns)))
    drawn = pipeline.text_to_image(captions, guidance_scale=pipeline.guidance_scale, progress=True)
    drawn = np.round(drawn * 255).astype(np.uint8)
    for start in range(0, len(real), columns):
        yield from (pictures[start : start + columns] for pictures in (real, drawn))


def main():
    rows = [row for name in COLUMNS for row in pairs(name)]
    sides = [ENLARGED * row[0].shape[0] for row in rows]
    gaps = [GAP if i % 2 == 0 else 4 * GAP for i in range(len(rows))]
    sheet = Image.new("RGB", (WIDTH, sum(sides) + sum(gaps)), "white")
    y = 0
    for row, side, gap in zip(rows, sides, gaps):
        for column, picture in enumerate(row):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * WIDTH // len(row), y))
        y += side + gap
    sheet.save(Path(__file__).with_name("sheet.png"), optimize=True)


if __name__ == "__main__":
    main()
