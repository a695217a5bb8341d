"""What the page shows as HTML of its own: pictures are in it, so that nothing is fetched, and small ones stay sharp."""

import base64
import html
import io

from PIL import Image

from minild.pipelines.attention_sheet import overlaid
from minild.pipelines.output import to_bytes
from minild.shown import shown

NAMES = {"text_to_image": "Text to image", "image_to_image": "Image to image", "inpaint": "Inpainting"}
SMALL = 256  # pixels: below, each is shown as a square

STYLE = """
.picture img { width: 100%; max-width: 512px; display: block; margin: auto; border-radius: 6px;
    box-shadow: 0 0 0 1px var(--border-color-primary); }
.picture .empty { aspect-ratio: 1; max-width: 512px; margin: auto; border-radius: 6px; display: grid;
    place-items: center; color: var(--body-text-color-subdued); background: var(--background-fill-secondary); }
img.small { image-rendering: pixelated; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: 10px; }
.maps figure { margin: 0; text-align: center; }
.maps img { width: 100%; border-radius: 4px; display: block; }
.maps figcaption { font-size: 13px; margin-top: 3px; overflow-wrap: anywhere; }
#status { min-height: 2.2em; }
.problem { color: #b91c1c; font-weight: 600; }
.dark .problem { color: #f87171; }
footer { display: none !important; }
"""


def _image(picture, alt):
    file = io.BytesIO()
    Image.fromarray(to_bytes(picture)).save(file, "png", compress_level=1)
    small = "small" if max(picture.shape[:2]) < SMALL else "large"
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="{small}" alt="{_text(alt)}" src="data:image/png;base64,{data}">'


def nothing_yet():
    """Where the picture will be."""
    return '<div class="picture"><div class="empty">The picture appears here.</div></div>'


def picture(shown, asked):
    """A live.Shown's picture."""
    return f'<div class="picture">{_image(shown.picture, asked.prompt)}</div>'


def maps(shown):
    """Each word's map under the picture; "" while there are none."""
    figures = [
        f"<figure>{_image(overlaid(shown.picture, map_), word)}<figcaption>{_text(word)}</figcaption></figure>"
        for word, map_ in shown.words
    ]
    if not figures:
        return ""
    told = "Where the model looked for each word: the lighter, the more."
    return f'<p>{told}</p><div class="maps">{"".join(figures)}</div>'


def status(shown, asked, seconds):
    """How far it is."""
    if not shown.finished:
        return _line(f"{NAMES[asked.way]}: step {shown.step} of {shown.steps}")
    done = f"{NAMES[asked.way]}: {shown.steps} steps in {seconds:.1f} s, seed {asked.seed}"
    return _line(done) + "".join(_line(f"Note: {note}") for note in shown.notes)


def waiting(asked):
    """Before the first step."""
    return _line(f"{NAMES[asked.way]}: begins ...")


def stopped(shown):
    """After the stop button; `shown` is what was shown last, None where there was nothing."""
    if shown is None:
        return _line("Stopped before the first step.")
    return _line(f"Stopped after step {shown.step} of {shown.steps}.")


def problem(error):
    """A user's mistake, in one line."""
    text = str(error)
    return f'<div class="status problem" role="alert">{_text(text[:1].upper() + text[1:])}</div>'


def _line(text):
    return f'<div class="status">{_text(text)}</div>'


def _text(text):
    return html.escape(shown(text))
