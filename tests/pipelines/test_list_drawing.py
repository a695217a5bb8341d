"""Drawing a list into a folder: the pictures of text_to_image, whole or not there, and none drawn twice."""

import json
import os
from functools import partial

import numpy as np
import pytest
import tiny_pipeline
from killed import killed_before
from PIL import Image

from minild.errors import UserError
from minild.pipelines import list_drawing, planning
from minild.pipelines.output import to_bytes

RED, GREEN = tiny_pipeline.CAPTIONS
LIST = [
    {"prompt": RED},
    {"prompt": GREEN, "seed": 9, "steps": 3, "name": "star"},
    {"prompt": RED, "negative_prompt": GREEN, "guidance_scale": 3, "clip_skip": 1, "guidance_rescale": 0.5},
    {"prompt": GREEN, "size": [10, 14], "sampler": "ddpm"},
    {"prompt": GREEN},
]
NAMES = ["000001.png", "star.png", "000003.png", "000004.png", "000005.png"]


@pytest.fixture
def draw(pipe, tmp_path):
    """draw(list, **settings) -> {line: Outcome} of the tiny pipeline, into the folder out."""

    def call(prompts=LIST, **settings):
        outcomes = list(pipe.draw_list(prompts, tmp_path / "out", **{"steps": 2} | settings))
        assert len({outcome.line for outcome in outcomes}) == len(outcomes)
        return {outcome.line: outcome for outcome in sorted(outcomes)}

    return call


@pytest.fixture
def drawn(pipe, monkeypatch):
    """The prompts of each call of text_to_image, one list a call."""
    calls, text_to_image = [], pipe.text_to_image

    def record(prompts, *rest, **settings):
        calls.append(prompts)
        return text_to_image(prompts, *rest, **settings)

    monkeypatch.setattr(pipe, "text_to_image", record)
    return calls


def statuses(outcomes):
    return [outcome.status for outcome in outcomes.values()]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def results(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_picture_is_that_of_text_to_image_alone(draw, pipe, tmp_path):
    outcomes = draw(seed=4)
    assert [outcome.file for outcome in outcomes.values()] == NAMES and set(statuses(outcomes)) == {"drawn"}
    for number, (line, name) in enumerate(zip(LIST, NAMES)):
        alone = {"steps": 2, "seed": 4 + number} | {key: value for key, value in line.items() if key != "name"}
        prompt = alone.pop("prompt")
        np.testing.assert_array_equal(pixels(tmp_path / "out" / name), to_bytes(pipe.text_to_image(prompt, **alone)[0]))
    told = results(tmp_path / "out" / "results.jsonl")
    assert {"line": 2, "status": "drawn", "file": "star.png", "prompt": GREEN, "seed": 9} in told and len(told) == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*NAMES, "results.jsonl", ".lock"}


def test_pictures_of_the_same_settings_are_drawn_together(draw, drawn, monkeypatch):
    monkeypatch.setattr(planning, "batch", lambda *shape: 3)
    draw([RED, {"prompt": GREEN, "steps": 3}, GREEN, RED, RED])
    assert drawn == [[RED, GREEN, RED], [GREEN], [RED]]


def test_a_line_waits_only_so_long_for_others(draw, drawn, monkeypatch):
    monkeypatch.setattr(planning, "batch", lambda *shape: 3)
    monkeypatch.setattr(list_drawing, "WAITING", 2)
    draw([{"prompt": RED, "steps": 3}, GREEN, {"prompt": RED, "steps": 4}, GREEN, GREEN, GREEN, GREEN])
    assert drawn == [[RED], [GREEN, GREEN], [RED], [GREEN, GREEN, GREEN]]


def test_what_is_there_is_not_drawn_again_and_what_changed_is(draw, drawn, tmp_path):
    draw()
    drawn.clear()
    assert set(statuses(draw())) == {"there"} and drawn == []
    assert {told["status"] for told in results(tmp_path / "out" / "results.jsonl")} == {"there"}
    changes = [{"seed": 1}, {"steps": 2}, {"negative_prompt": RED}, {"size": [14, 10]}, {"prompt": RED}]
    for number, change in enumerate(changes):
        changed = [line | change if i == number else line for i, line in enumerate(LIST)]
        assert statuses(draw(changed)) == ["drawn" if i == number else "there" for i in range(5)], change
        draw()
    named = {"model": "other", "dtype": "float32", "variant": None}
    assert set(statuses(draw(named=named))) == {"drawn"} and set(statuses(draw(named=named))) == {"there"}


@pytest.mark.parametrize("content", [b"", b"no picture", "cut"])
def test_a_file_that_is_no_such_picture_is_drawn_over(draw, tmp_path, content):
    draw([RED])
    path = tmp_path / "out" / NAMES[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:40] if content == "cut" else content)
    assert statuses(draw([RED])) == ["drawn"] and path.read_bytes() == whole


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers too large
def test_what_fails_costs_no_other(draw, drawn, tmp_path):
    lines = [
        RED,
        {"prompt": RED, "sampler": "magic"},
        {"prompt": RED, "steps": 1001},
        {"prompt": RED, "size": 11},
        {"prompt": RED, "clip_skip": 9},
        {"promt": RED},
        RED + " and zzz",
        {"prompt": RED, "guidance_scale": 1e38},
        {"prompt": RED, "guidance_scale": 1e38, "negative_prompt": "red " * 20},
        GREEN,
    ]
    outcomes = draw(lines)
    assert statuses(outcomes) == ["drawn", *["failed"] * 8, "drawn"]
    told = [outcome.error for outcome in outcomes.values() if outcome.error]
    expected = [
        "unknown sampler 'magic'",
        "steps: expected 1 to 1000",
        "size 11 x 11 is not divisible by 2",
        "clip skip must be",
        "unknown field 'promt'",
        "a prompt is longer than the 14 tokens that fit: left out are 2 words",
        "the model gave values that are no numbers",
        "a prompt is longer than the 14 tokens",
    ]
    for error, words in zip(told, expected, strict=True):
        assert error.startswith(words)
    failed = [told for told in results(tmp_path / "out" / "results.jsonl") if told["status"] == "failed"]
    assert sorted(entry["line"] for entry in failed) == list(range(2, 10)) and all(entry["error"] for entry in failed)
    assert statuses(draw(lines)) == ["there", *["failed"] * 8, "there"]


@pytest.mark.parametrize("error", [UserError("no numbers"), MemoryError("8 TiB")])
def test_one_of_a_batch_that_fails_is_found(draw, pipe, monkeypatch, error):
    text_to_image = pipe.text_to_image

    def fail(prompts, *rest, **settings):
        if GREEN in prompts:
            raise error
        return text_to_image(prompts, *rest, **settings)

    monkeypatch.setattr(pipe, "text_to_image", fail)
    monkeypatch.setattr(planning, "batch", lambda *shape: 3)
    outcomes = draw([RED, GREEN, RED])
    assert statuses(outcomes) == ["drawn", "failed", "drawn"]
    assert outcomes[2].error == ("not enough memory (8 TiB)" if isinstance(error, MemoryError) else "no numbers")


def test_shares_draw_what_one_process_draws(draw, pipe, tmp_path):
    draw()
    shared = tmp_path / "shared"
    for rank in (1, 0):
        lines = [one.line for one in pipe.draw_list(LIST, shared, (rank, 2), steps=2)]
        assert sorted(lines) == [[1, 3, 5], [2, 4]][rank]
        assert sorted(told["line"] for told in results(shared / f"results-{rank}-of-2.jsonl")) == sorted(lines)
    for name in NAMES:
        assert (shared / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert set(statuses(draw(share=(0, 2)))) == {"there"}


def test_one_process_draws_a_share(draw, pipe, tmp_path):
    drawing = pipe.draw_list(LIST, tmp_path / "out", steps=2)
    next(drawing)
    with pytest.raises(UserError, match=r"another process draws into .*out: wait until it ends, or give each its own"):
        draw()
    assert statuses(draw(share=(1, 2)))
    drawing.close()
    assert statuses(draw())
    assert not (tmp_path / "out" / ".partial").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"steps": 0}, "steps: expected 1 to 1000, got 0"),
        ({"size": (11, 10)}, "size 11 x 10 is not divisible by 2"),
        ({"negative_prompt": "\udcff"}, "a prompt is not valid text"),
        ({"share": (2, 2)}, "share 2/2: expected K/N, K from 0 to N - 1"),
    ],
)
def test_settings_with_which_nothing_can_be_drawn_are_refused_at_once(draw, tmp_path, settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        draw(**settings)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be(draw, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match=r"^cannot write to .*out: "):
        draw()


def test_a_full_disk_ends_it_and_costs_no_picture_that_is_there(draw, tmp_path, monkeypatch):
    draw([RED])
    before = (tmp_path / "out" / NAMES[0]).read_bytes()
    monkeypatch.setattr(list_drawing, "flush", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        draw([GREEN])
    assert (tmp_path / "out" / NAMES[0]).read_bytes() == before
    assert not (tmp_path / "out" / ".partial").exists()


def _draw_all(pipe, folder):
    list(pipe.draw_list(LIST[:3], folder, steps=1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_kill_at_any_moment_leaves_whole_pictures_and_the_rest_is_drawn(draw, pipe, tmp_path):
    _draw_all(pipe, tmp_path / "expected")
    expected = {name: (tmp_path / "expected" / name).read_bytes() for name in NAMES[:3]}
    call, seen = 0, set()
    while True:
        folder = tmp_path / f"{call}"
        if not killed_before(call, partial(_draw_all, pipe, folder)):
            break
        there = {path.name: path.read_bytes() for path in folder.glob("*.png")}
        assert there.items() <= expected.items()
        seen.add(len(there))
        again = [one.status for one in pipe.draw_list(LIST[:3], folder, steps=1)]
        assert sorted(again) == ["drawn"] * (3 - len(there)) + ["there"] * len(there)
        assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == expected
        assert not (folder / ".partial").exists()
        call += 1
    assert seen == {0, 1, 2, 3}
