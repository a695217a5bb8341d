"""The sheet of `minild txt2img --attention`: the picture, and each word's map laid over it in colours."""

import contextlib

import numpy as np

from minild.errors import UserError
from minild.pipelines.attention_maps import watch_attention
from minild.pipelines.output import output_paths, whole_file
from minild.pipelines.sheet import draw_sheet

COLUMNS = 6
SMALLEST, LARGEST = 160, 320  # pixels that the wider side of a picture takes on the sheet

# From dark to light, by way of blue, purple, red and orange: lighter is more, and so it reads in grey as well.
COLOURS = np.array([(8, 8, 40), (60, 20, 120), (150, 30, 130), (225, 60, 80), (250, 140, 40), (255, 240, 130)]) / 255
FAINTEST, STRONGEST = 0.3, 0.85  # how much of a pixel's colour is the map's: where the word is least, and most
DARKEST = 0.4  # grey of the picture under a map: darker, it would itself look like a little of the word


def coloured(values):
    """Values in [0, 1], (...,) -> their colours (..., 3) in [0, 1], between those of COLOURS linearly."""
    stops = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, stops, channel) for channel in COLOURS.T], axis=-1)


def overlaid(picture, map_):
    """picture (H, W, 3) in [0, 1] and a map (H, W) -> (H, W, 3): the picture in grey, the map over it in colours.

    The map's least value is the darkest colour, its largest the lightest.
    """
    spread = map_.max() - map_.min()
    values = (map_ - map_.min()) / spread if spread > 0 else np.zeros_like(map_)
    share = (FAINTEST + (STRONGEST - FAINTEST) * values)[..., None]
    grey = DARKEST + (1 - DARKEST) * picture.mean(axis=-1, keepdims=True)
    return (1 - share) * grey + share * coloured(values)


def draw_attention_sheet(path, picture, prompt, words, maps):
    """Write a PNG: the picture over its prompt, then for each word its map (H, W) over the picture.

    Each label has the map's largest probability, in per cent of a place's attention.
    """
    tiles = [picture, *(overlaid(picture, map_) for map_ in maps)]
    labels = [prompt, *(f"{word} {map_.max():.0%}" for word, map_ in zip(words, maps))]
    height, width = picture.shape[:2]
    wider = max(height, width)
    scale = max(1, SMALLEST // wider) if wider < LARGEST else LARGEST / wider
    tile = round(height * scale), round(width * scale)
    with whole_file(path) as file:
        draw_sheet(file, np.stack(tiles), labels, min(len(tiles), COLUMNS), tile)


def sheet_paths(path, count, pictures):
    """The files that the sheets of `count` pictures go to, [] for a path of None.

    pictures: the files of the pictures. UserError for a name that is no .png, or one of theirs.
    """
    if path is None:
        return []
    if path.suffix.lower() != ".png":
        raise UserError(f"attention {path}: expected a name that ends in .png")
    paths = output_paths(path, count)
    taken = {picture.resolve() for picture in pictures}
    for sheet in paths:
        if sheet.resolve() in taken:
            raise UserError(f"attention {sheet}: a picture goes there, give another name")
    return paths


@contextlib.contextmanager
def watched(pipe, paths):
    """Within it, drawings are watched if there are any paths; what it gives writes their sheets, given the pictures."""
    if not paths:
        yield lambda pictures: None
        return
    with watch_attention(pipe) as seen:

        def write(pictures):
            for number, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
                prompt = seen.request.prompts[number]
                draw_attention_sheet(path, picture, prompt, seen.words(number), seen.maps(number))

        yield write
