"""Sheets: pictures in rows, each with its label under it."""

from bisect import bisect_right

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minild.shown import shown

TILE, LINES = 96, 4  # pixels of a picture's side on a sheet, and lines of text under it
GAP = 8  # pixels between pictures
LONGEST = 500  # characters of a label that are looked at: more than the lines under a picture hold


def font_size(width):
    """Of the labels under pictures of that width."""
    return max(10, width // 12)


def label_height(width):
    """Pixels of the text under a picture of that width."""
    return LINES * (font_size(width) + 1)


def draw_sheet(path, pictures, labels, columns=8, tile=(TILE, TILE)):
    """Write a PNG of (N, H, W, 3) pictures in [0, 1], each with its label under it.

    tile: (height, width) of each in pixels of the sheet. A label that takes more than LINES lines is cut.
    """
    height, width = tile
    size = font_size(width)
    step_y, step_x = height + label_height(width) + GAP, width + GAP
    sheet = Image.new("RGB", (columns * step_x, -(-len(pictures) // columns) * step_y), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=size)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = (i % columns) * step_x + GAP // 2, (i // columns) * step_y + GAP // 2
        image = Image.fromarray(np.round(picture * 255).astype(np.uint8))
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y))
        text = _wrap(label, font, width)
        draw.multiline_text((x, y + height + 2), text, fill=(60, 60, 60), font=font, spacing=1)
    sheet.save(path, "png")


def _wrap(text, font, width):
    """The text in lines no wider than that, cut after LINES of them; a wider word is cut, too."""
    wrapped = [""]
    for word in shown(text[:LONGEST]).split():
        longer = f"{wrapped[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            wrapped[-1] = longer
        else:
            wrapped.append(word)
    wrapped = [line for line in wrapped if line][:LINES]
    return "\n".join(_cut(line, font, width) for line in wrapped)


def _cut(line, font, width):
    """The longest beginning of a line that is no wider than that."""
    return line[: bisect_right(range(1, len(line) + 1), width, key=lambda count: font.getlength(line[:count]))]
