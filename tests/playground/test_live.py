"""minild.playground.live: pictures on their way, the last bit for bit the library's; and drawings that are stopped."""

import threading
import time

import numpy as np
import pytest
import tiny_pipeline

from minild.errors import UserError
from minild.playground import live
from minild.playground.asked import Asked
from minild.playground.live import Drawings, draw

RED = tiny_pipeline.CAPTIONS[0]
ASKED = Asked(RED, "", "ddim", 6, 3.0, 5, 0.5)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(live, "SHARE", float("inf"))


def ended(before):
    """Whether the threads that were begun since have ended, soon."""
    until = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    return not set(threading.enumerate()) - before


def test_every_step_is_shown_and_the_last_with_the_maps_of_the_words(pipe, every_step):
    shown = list(draw(pipe, ASKED, threading.Event()))
    assert [(each.step, each.steps, each.finished) for each in shown] == [(i, 6, i == 6) for i in range(1, 7)]
    expected = pipe.text_to_image(RED, steps=6, guidance_scale=3.0, sampler="ddim", seed=5)[0]
    assert np.array_equal(shown[-1].picture, expected)
    assert all(abs(each.picture - expected).max() > 0.01 for each in shown[:3])
    assert [word for word, _ in shown[-1].words] == RED.split()
    assert all(map_.shape == (8, 8) and 0 < map_.min() and map_.max() < 1 for _, map_ in shown[-1].words)
    assert not any(each.words or each.notes for each in shown[:-1])


def test_showing_takes_no_more_than_its_share_of_the_time(pipe, monkeypatch):
    monkeypatch.setattr(live, "SHARE", 0)
    assert [each.step for each in draw(pipe, ASKED, threading.Event())] == [1, 6]


def test_a_picture_is_begun_with_and_what_lies_around_a_mask_stays_on_the_way(pipe, picture, every_step):
    mask = np.zeros((8, 8), bool)
    mask[2:6, :4] = True
    shown = list(draw(pipe, ASKED._replace(picture=picture), threading.Event()))
    assert [(each.step, each.steps) for each in shown] == [(1, 3), (2, 3), (3, 3)]  # half the strength, half the steps
    shown = list(draw(pipe, ASKED._replace(picture=picture, mask=mask), threading.Event()))
    assert len(shown) == 6
    for each in shown:
        assert np.array_equal(each.picture[~mask], picture[~mask].astype(np.float32) / 255)
    assert abs(shown[0].picture - shown[-1].picture)[mask].max() > 0.01


def test_what_does_not_fit_into_the_prompt_is_told(pipe):
    *_, last = draw(pipe, ASKED._replace(prompt="red " * 13), threading.Event())
    assert last.notes == ("a prompt is longer than the 14 tokens that fit: left out is 1 word, 'red'",)


def test_stopped_it_ends_after_the_step(pipe, every_step):
    before, stop, steps = set(threading.enumerate()), threading.Event(), []
    for shown in draw(pipe, ASKED._replace(steps=900), stop):
        steps.append(shown.step)
        if shown.step == 3:
            stop.set()
    assert steps in ([1, 2, 3], [1, 2, 3, 4]) and ended(before)


def test_it_ends_when_nobody_looks_any_more(pipe, every_step):
    before, stop = set(threading.enumerate()), threading.Event()
    drawing = draw(pipe, ASKED._replace(steps=900), stop)
    next(drawing)
    drawing.close()
    assert stop.is_set() and ended(before)


def test_mistakes_come_out_of_the_generator(pipe, monkeypatch):
    before = set(threading.enumerate())
    with pytest.raises(UserError, match="unknown sampler 'fast'"):
        list(draw(pipe, ASKED._replace(sampler="fast"), threading.Event()))
    monkeypatch.setattr(pipe, "decode", None)
    with pytest.raises(TypeError):  # a bug, too, is told where somebody sees it
        list(draw(pipe, ASKED, threading.Event()))
    assert ended(before)


def test_another_drawing_stops_a_visitors_last_and_nobody_elses():
    drawings = Drawings()
    first, others = drawings.begin("me"), drawings.begin("you")
    assert not first.is_set() and not drawings.replaced("me", first)
    second = drawings.begin("me")
    assert first.is_set() and drawings.replaced("me", first) and not second.is_set()
    drawings.stop("me"), drawings.stop("nobody")
    assert second.is_set() and not drawings.replaced("me", second) and not others.is_set()
    third = drawings.begin("me")
    drawings.forget("me")
    assert third.is_set() and "me" not in drawings.running
    drawings.stop_all()
    assert others.is_set()
