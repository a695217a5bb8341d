"""Build the emoji set: every single-codepoint emoji of Unicode's emoji-test.txt, drawn with the Noto colour font.

    apt install fonts-noto-color-emoji unicode-data
    python data/emoji/build.py

Writes, beside this file, sheets of 16 x 16 pictures of 64 x 64 pixels (sheet-0.png, ...), how much of each pixel the
emoji covers (opacity-0.png, ..., grey) and metadata.jsonl, whose n-th line describes the n-th picture: text (its name),
codepoint, group, subgroup. Each emoji is drawn at the size the font stores it in (136 x 128), centred with a margin on
white, and area-averaged. What is white there and black on black is not covered.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BITMAP = 109  # the one size, in pixels per em, that the font holds
CANVAS = 144  # the bitmaps are 136 wide: a margin of 4 on either side
SIDE = 64
ACROSS = 16  # pictures across and down a sheet
LINE = re.compile(r"^(?P<code>[0-9A-F]+)(?: FE0F)?\s*; fully-qualified\s*# \S+ E[\d.]+ (?P<name>.+)$")


def read_list(path):
    """emoji-test.txt -> one dict an emoji, in the file's order, which is Unicode's."""
    entries, group, subgroup = [], "", ""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := LINE.match(line):
            entries.append({"text": match["name"], "codepoint": match["code"], "group": group, "subgroup": subgroup})
    return entries


def draw(character, font, ground="white"):
    """One emoji on a ground of one colour -> (SIDE, SIDE, 3) uint8."""
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("RGB", (CANVAS, CANVAS), ground)
    corner = ((CANVAS - right - left) / 2, (CANVAS - bottom - top) / 2)
    ImageDraw.Draw(canvas).text(tuple(map(round, corner)), character, font=font, embedded_color=True)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))


def opacity(on_white, on_black):
    """The same emoji on two grounds, (..., 3) uint8 -> how much of each pixel they cover, 0 to 255, (...) uint8."""
    return (255 - (on_white.astype(int) - on_black).mean(axis=-1)).round().clip(0, 255).astype(np.uint8)


def write_sheets(folder, name, pictures, empty):
    """Pictures (N, SIDE, SIDE, ...) uint8 -> sheets of ACROSS x ACROSS: name-0.png, ...; `empty` fills up the last."""
    for start in range(0, len(pictures), ACROSS**2):
        chunk = pictures[start : start + ACROSS**2]
        rows = -(-len(chunk) // ACROSS)
        sheet = np.full((rows * ACROSS, *chunk.shape[1:]), empty, np.uint8)
        sheet[: len(chunk)] = chunk
        sheet = np.moveaxis(sheet.reshape(rows, ACROSS, *chunk.shape[1:]), 2, 1)
        sheet = sheet.reshape(rows * SIDE, ACROSS * SIDE, *chunk.shape[3:])
        Image.fromarray(sheet).save(folder / f"{name}-{start // ACROSS**2}.png", optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--font", default="/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    parser.add_argument("--list", default="/usr/share/unicode/emoji/emoji-test.txt")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()

    entries = read_list(args.list)
    font = ImageFont.truetype(args.font, BITMAP)
    characters = [chr(int(entry["codepoint"], 16)) for entry in entries]
    on_white, on_black = (np.stack([draw(one, font, ground) for one in characters]) for ground in ("white", "black"))
    write_sheets(args.output, "sheet", on_white, 255)
    write_sheets(args.output, "opacity", opacity(on_white, on_black), 0)
    with open(args.output / "metadata.jsonl", "w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    print(f"{len(entries)} emoji")


if __name__ == "__main__":
    main()
