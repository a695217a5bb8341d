"""What all pages share: the frame around them, pictures as text, and a still picture where scripts don't run.

The still picture is what the file shows. The script at its end, once it has set up everything, puts the moving figure
in its place. So a reader without scripts, or with a browser that is too old for this one, sees the still picture.
"""

import base64
import html
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HERE = Path(__file__).parent


class Page(NamedTuple):
    """A page; what its figure is made of, and does, say the files .html and .js of its name in this folder."""

    title: str
    figure: str  # the number of the still figure of the chapter that moves here, such as "3.1"
    about: str  # a sentence or two under the title
    still: np.ndarray  # (H, W, 3) or (H, W, 4), uint8
    alt: str  # what the still picture shows, for those who do not see it
    caption: str  # under the still picture
    data: dict  # what the script reads: numbers, texts, and pictures as `png` gives them

    def html(self, name):
        """The whole file, as text."""
        parts = {
            "title": html.escape(self.title), "figure": self.figure, "chapter": self.figure.partition(".")[0],
            "about": html.escape(self.about), "still": png(self.still), "alt": html.escape(self.alt),
            "caption": html.escape(self.caption), "data": as_script(self.data),
            "style": read("frame.css"), "shared": read("frame.js"),
            "body": read(f"{name}.html"), "script": read(f"{name}.js"),
        }  # fmt: skip
        text = read("frame.html")
        for part, value in parts.items():
            text = text.replace(f"{{{{{part}}}}}", value)
        return text


def read(name):
    """The text of a file of this folder."""
    return (HERE / name).read_text(encoding="utf-8").rstrip("\n")


def as_script(data):
    """JSON that may stand within a <script>."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def png(pixels):
    """A picture (H, W), (H, W, 3) or (H, W, 4), uint8 -> a data URI of its PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def as_bytes(values, low=0.0, high=1.0):
    """Numbers from low to high -> uint8; what lies beyond is cut off."""
    return np.rint(255 * np.clip((np.asarray(values, float) - low) / (high - low), 0, 1)).astype(np.uint8)


def tiled(pictures, columns, gap=2):
    """Pictures of one size, (H, W, 3) uint8 each -> all in one (., ., 4), row by row, with clear gaps between them."""
    H, W = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * (H + gap) - gap, columns * (W + gap) - gap, 4), np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // columns * (H + gap), k % columns * (W + gap)
        sheet[y : y + H, x : x + W, :3], sheet[y : y + H, x : x + W, 3] = picture, 255
    return sheet
