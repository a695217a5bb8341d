"""The chapters' moving figures as they are committed: made by the code beside them, small, and asking nobody.

What they do in a browser is for tests/test_moving_in_browser.py to say.
"""

import base64
import importlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minild import data
from minild.data.judge import judge
from minild.data.pictures import gather
from minild.diffusion import NoiseSchedule

CHAPTERS = Path(__file__).parents[1] / "chapters"
FILES = sorted((CHAPTERS / "pages").glob("*"))
LARGEST = 400_000  # bytes
JSON = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
PNG = "data:image/png;base64,"
LEVELS, SHARE = 3, 0.002  # by which another machine's pictures (of 255) and weights may differ

names = pytest.mark.parametrize("name", [path.stem for path in FILES])


def text_of(name):
    return (CHAPTERS / "pages" / f"{name}.html").read_text(encoding="utf-8")


def data_of(name):
    return json.loads(JSON.search(text_of(name))[1])


def pixels(uri):
    assert uri.startswith(PNG)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(PNG), validate=True))))


class Tags(HTMLParser):
    """The tags of a page with their attributes, and the attributes of the still picture."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)
        after = self.tags.index(("figure", {"id": "still"})) + 1
        self.still = self.tags[after][1]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture
def moving(monkeypatch):
    monkeypatch.syspath_prepend(CHAPTERS)
    return importlib.import_module("moving")


def test_all_that_are_made_are_there_and_no_others(moving):
    assert [path.name for path in FILES] == sorted(f"{name}.html" for name in moving.PAGES)


def same(made, committed):
    """Whether two pages' data say the same; pictures and weights may differ by as little as machines do."""
    if isinstance(made, dict):
        return made.keys() == committed.keys() and all(same(made[key], committed[key]) for key in made)
    if isinstance(made, list):
        return len(made) == len(committed) and all(map(same, made, committed))
    if isinstance(made, float):
        return abs(made - committed) <= SHARE
    if isinstance(made, str) and made.startswith(PNG):
        one, other = (pixels(uri).astype(int) for uri in (made, committed))
        return one.shape == other.shape and abs(one - other).max() <= LEVELS
    return made == committed


@names
def test_is_what_the_code_makes(moving, name):
    made, committed = importlib.import_module(f"moving.{name}").page().html(name), text_of(name)
    assert same(json.loads(JSON.search(made)[1]), data_of(name)), "run `python -m moving` in the folder chapters"
    assert same(*(Tags(text).still["src"] for text in (made, committed)))
    assert JSON.sub("", made).split(PNG)[0] == JSON.sub("", committed).split(PNG)[0]
    assert JSON.sub("", made).split('" alt="')[1:] == JSON.sub("", committed).split('" alt="')[1:]


def test_another_picture_or_number_is_not_the_same():
    grey, darker, large = (Image.new("L", size, level) for size, level in (((2, 2), 99), ((2, 2), 90), ((3, 3), 99)))
    uris = []
    for image in (grey, darker, large):
        file = io.BytesIO()
        image.save(file, "png")
        uris.append(PNG + base64.b64encode(file.getvalue()).decode())
    assert same({"a": [uris[0], 0.5, 1]}, {"a": [uris[0], 0.501, 1]})
    for other in ([uris[1], 0.5, 1], [uris[2], 0.5, 1], [uris[0], 0.51, 1], [uris[0], 0.5, 2], [uris[0], 0.5]):
        assert not same({"a": [uris[0], 0.5, 1]}, {"a": other})


@names
def test_is_small_and_has_all_it_needs(name):
    text = text_of(name)
    assert len(text.encode()) < LARGEST
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    for tag, attributes in Tags(text).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert attributes.get("src", PNG).startswith(PNG) and "href" not in attributes and "srcset" not in attributes
    (policy,) = [a["content"] for tag, a in Tags(text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")


@names
def test_has_a_still_picture_with_words(name):
    tags = Tags(text_of(name))
    height, width = pixels(tags.still["src"]).shape[:2]
    assert height > 30 and width > 50 and len(tags.still["alt"]) > 60
    assert all("alt" in attributes for tag, attributes in tags.tags if tag == "img")
    assert [attributes for tag, attributes in tags.tags if tag == "section"] == [{"id": "moving", "hidden": None}]


def test_the_noise_is_that_of_the_schedule_and_the_picture_what_the_words_say():
    frames = data_of("noise_level")["frames"]
    bars = NoiseSchedule().alphas_cumprod
    assert [frame["t"] for frame in frames][::25] == [0, 500, 999]
    np.testing.assert_allclose([frame["bar"] for frame in frames], bars[[frame["t"] for frame in frames]], rtol=1e-4)
    _, captions = gather(data.load("shapes", "test"), 64)
    assert captions[1][0].startswith("a green triangle above a blue circle")
    verdicts = [judge(pixels(frames[k]["picture"]) / 255, captions[1][0])["all"] for k in (0, -1)]
    assert verdicts == [True, False]


def test_the_weights_of_a_place_add_up_to_one():
    page = data_of("words_and_places")
    weights = np.array(page["weights"])
    assert weights.shape == (16, len(page["tokens"]))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=0.001)
    red, square = (weights[:, page["tokens"].index(word)].reshape(4, 4) for word in ("red", "square"))
    assert red[:2].sum() > red[2:].sum() and square[2:].sum() > square[:2].sum()


def test_the_two_films_begin_alike_and_end_as_the_page_says():
    page = data_of("denoising_film")
    alone, led = page["films"]
    assert (alone["scale"], led["scale"]) == (1, 2) and len(alone["seen"]) == len(led["guessed"]) == 21
    assert alone["seen"][0] == led["seen"][0] and alone["guessed"][0] != led["guessed"][0]
    assert page["times"] == NoiseSchedule().timesteps(20).tolist()
    for film, right in ((alone, False), (led, True)):
        assert film["seen"][-1] == film["guessed"][-1]
        assert judge(pixels(film["seen"][-1]) / 255, page["caption"])["all"] == right
