"""minild.playground.play: what the page shows of a drawing, of a mistake, and of one drawing after the other."""

import base64
import io
import re

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image

from minild import cli
from minild.errors import UserError
from minild.playground import html, live
from minild.playground.live import Shown
from minild.playground.play import Playground

RED = tiny_pipeline.CAPTIONS[0]


@pytest.fixture
def play(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "SHARE", float("inf"))
    return Playground(pipe, tmp_path, model="tiny", dtype="float32", variant=None)


def drawing(play, prompt=RED, steps=3, editor=None, visitor="me", seed=7, guidance=2.5):
    return play.draw(visitor, prompt, "", "euler", steps, guidance, seed, 0.5, editor)


def pixels_of(view):
    """The picture in a View's HTML."""
    [data] = re.findall(r'src="data:image/png;base64,([^"]*)"', view.picture)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_page_shows_each_step_and_then_all_there_is(play, pipe):
    waiting, first, second, last = drawing(play)
    assert "Text to image: begins" in waiting.status and waiting.maps == ""
    assert "Text to image: step 1 of 3" in first.status and "step 2 of 3" in second.status
    assert first.file is None and first.maps == ""
    assert re.search(r"Text to image: 3 steps in \d+\.\d s, seed 7", last.status)
    picture = pipe.text_to_image(RED, steps=3, sampler="euler", guidance_scale=2.5, seed=7)[0]
    assert np.array_equal(pixels_of(last), np.rint(picture * 255)) and np.array_equal(last.drawn, pixels_of(last))
    assert not np.array_equal(pixels_of(first), pixels_of(last))
    assert re.findall(r"<figcaption>(\w+)</figcaption>", last.maps) == RED.split()
    assert 'class="small"' in last.picture and f'alt="{RED}"' in last.picture


def test_the_file_is_that_of_the_command_byte_for_byte(pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe.save_pretrained("tiny")
    (tmp_path / "page").mkdir()
    *_, last = drawing(Playground(pipe, tmp_path / "page", model="tiny", dtype="float32", variant=None), guidance=2)
    options = ["--steps", "3", "--guidance", "2", "--seed", "7", "--sampler", "euler", "--output", "command.png"]
    assert cli.main(["txt2img", RED, "--model", "tiny", *options]) == 0
    with open(last.file, "rb") as page, open("command.png", "rb") as command:
        assert page.read() == command.read()
    assert last.file.endswith("a-red-circle-above-a-blue-square-on-a-wh.png")


def test_what_was_given_is_told_in_the_file(play, picture, file, layer):
    mask = np.zeros((8, 8), bool)
    mask[:4] = True
    editor = {"background": file(picture), "layers": []}
    *_, last = drawing(play, editor=editor)
    assert {"strength": "0.5", "image": "playground"}.items() <= Image.open(last.file).text.items()
    assert "Image to image: 1 steps" in last.status
    *_, last = drawing(play, editor=editor | {"layers": [layer(mask)]})
    assert {"strength": "1.0", "mask": "playground"}.items() <= Image.open(last.file).text.items()
    assert "Inpainting: 3 steps" in last.status and np.array_equal(last.drawn[4:], picture[4:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "The prompt is empty: say what to draw"),
        ({"seed": None}, "Seed is empty: give a number"),
        ({"seed": -1}, "Seed must be a whole number from 0, got -1"),
        ({"steps": 1, "editor": {"background": "FILE", "layers": []}}, "Strength 0.5 of 1 steps is less than one step"),
        ({"editor": {"background": None, "layers": ["LAYER"]}}, "A mask is painted over a picture: give a picture"),
    ],
)
def test_a_mistake_is_one_line_on_the_page(play, picture, file, layer, change, message):
    if editor := change.get("editor"):
        files = {"FILE": file(picture), "LAYER": layer(np.ones((8, 8), bool))}
        layers = [files[name] for name in editor["layers"]]
        change = change | {"editor": {"background": files.get(editor["background"]), "layers": layers}}
    *_, last = drawing(play, **change)
    assert 'role="alert"' in last.status and message in last.status and "\n" not in last.status
    assert last.picture is None and last.file is None


def test_too_little_memory_is_a_line_too(play, monkeypatch):
    def exhaust(*arguments, **settings):
        raise MemoryError("8 TiB")

    monkeypatch.setattr("minild.pipelines.Pipeline.text_to_image", exhaust)
    *_, last = drawing(play)
    assert "Not enough memory (8 TiB): use a smaller model" in last.status


def test_stop_keeps_what_was_shown_and_says_so(play):
    views = []
    for view in drawing(play, steps=900):
        views.append(view)
        if len(views) == 3:
            play.drawings.stop("me")
    assert re.search(r"Stopped after step [23] of 900", views[-1].status) and views[-1].picture is None
    assert len(views) < 6


def test_another_drawing_ends_the_first_without_a_word(play):
    first = drawing(play, steps=900)
    assert "begins" in next(first).status and "step 1 of" in next(first).status
    *_, last = drawing(play)
    assert "3 steps" in last.status
    rest = list(first)
    assert len(rest) < 2 and not any("Stopped" in view.status for view in rest)


def test_a_picture_that_is_given_is_shown_as_the_model_will_have_it(play, picture, file, tmp_path):
    large = np.full((90, 60, 3), 120, np.uint8)
    scaled, view = play.given({"background": file(large), "layers": []})
    assert scaled.shape == (504, 336, 3) and view.status == ""
    assert play.given({"background": file(scaled), "layers": []}) == (None, (None,) * 5)  # or it would go on for ever
    (tmp_path / "broken.png").write_bytes(b"no picture")
    scaled, view = play.given({"background": str(tmp_path / "broken.png")})
    assert scaled is None and "Cannot read the picture" in view.status
    scaled, _ = play.taken_over(picture)
    assert np.array_equal(scaled[::64, ::64], picture)
    scaled, view = play.taken_over(None)
    assert scaled is None and "There is no picture yet: draw one first" in view.status


def test_seeds_by_chance_are_not_all_the_same(play):
    assert len({play.another_seed() for _ in range(20)}) > 10


def test_a_model_that_words_do_not_lead_is_refused(tmp_path):
    with pytest.raises(UserError, match="what leads this model is class"):
        Playground(tiny_pipeline.make(record={"condition": "class"}), tmp_path)


def test_what_people_type_is_no_html(play):
    shown = Shown(np.zeros((300, 8, 3)), 1, 1, (("<b>", np.zeros((300, 8))),), ('"<i>"',), finished=True)
    assert "<b>" not in html.maps(shown) and "&lt;b&gt;" in html.maps(shown) and 'class="large"' in html.maps(shown)
    *_, last = drawing(play, prompt='"><script>')
    assert "<script>" not in last.picture and "&quot;&gt;&lt;script&gt;" in last.picture
    assert "<i>" not in html.problem(UserError("<i>\nx")) and "\n" not in html.problem(UserError("<i>\nx"))
