"""`minild train clip`: its batches, that it learns, and the folder that it leaves."""

import json

import numpy as np
import pytest
from PIL import Image

from minild import data
from minild.errors import UserError
from minild.evaluation import load_clip
from minild.pretrained import read_json
from minild.training import clip
from minild.training.clip import ContrastiveObjective, distinct_groups, moved, train_clip

COLOURS = ["red", "lime", "blue", "yellow", "black", "white"]


@pytest.fixture
def folder(tmp_path):
    """Six captions, two pictures of each: plain colours."""
    for name in COLOURS:
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8), name).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(clip, "WIDTH", 16)
    monkeypatch.setattr(clip, "LAYERS", 1)
    monkeypatch.setattr(clip, "EMBEDDING", 8)


def test_no_two_pictures_of_a_batch_share_a_caption(rng):
    captions = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("e", "e"), ("e", "f")]
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)
    ids = np.arange(12).reshape(6, 2, 1)
    objective = ContrastiveObjective(pictures, captions, ids)
    seen = set()
    for _ in range(40):
        x, chosen = objective.batch(rng, 5, 0.0)
        rows = np.round((x[:, 0, 0, 0] + 1) * 127.5).astype(int)
        several = [caption for row in rows for caption in set(captions[row])]
        assert len(several) == len(set(several)) and 2 <= len(rows) <= 3
        assert (chosen[:, 0] // 2 == rows).all()
        seen |= set(chosen[:, 0])
    assert seen == set(range(12))
    assert len(objective.batch(rng, 1, 0.0)[0]) == 1


def test_pictures_are_moved_and_keep_their_edge(rng):
    pictures = rng.integers(0, 256, (50, 7, 9, 3), np.uint8)
    places = set()
    for before, after in zip(pictures, moved(pictures, rng)):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), mode="edge")
        found = {(i, j) for i in range(5) for j in range(5) if np.array_equal(padded[i : i + 7, j : j + 9], after)}
        assert len(found) == 1
        places |= found
    assert {i for i, _ in places} == {j for _, j in places} == set(range(5))


def test_groups_share_no_caption():
    captions = [("a",), ("b",), ("a",), ("c",), ("d",), ("e",)]
    assert distinct_groups(captions, 2) == [[0, 1], [2, 3], [4, 5]]
    assert distinct_groups(captions, 4) == [[0, 1, 3, 4]]
    assert distinct_groups(captions, 32) == [[0, 1, 3, 4, 5]]


def test_a_training_learns_and_leaves_a_clip(folder, small, tmp_path):
    output = tmp_path / "clip"
    train_clip(folder, output, steps=60, size=8)
    record = read_json(output / "minild.json")
    assert (record["steps"], record["size"], record["pictures"], record["among"]) == (60, 8, 12, 6)
    assert record["retrieved"] == 1
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.3 < lines[0]["loss"]
    trained = load_clip(output)
    pictures, names = zip(*data.load(folder, size=8))
    colours = np.unique(np.stack(pictures), axis=0)
    assert len(colours) == 6
    likeness = trained.embed_pictures(np.stack(pictures)) @ trained.embed_captions(COLOURS).T
    assert [COLOURS[i] for i in likeness.argmax(axis=1)] == list(names)
    with pytest.raises(UserError, match="holds a model already"):
        train_clip(folder, output, steps=1, size=8)


def test_the_logit_scale_stays_in_its_limit(folder, small, tmp_path, monkeypatch):
    monkeypatch.setattr("minild.models.clip.LARGEST_SCALE", 2.66)
    train_clip(folder, tmp_path / "clip", steps=20, size=8)
    assert float(load_clip(tmp_path / "clip").model.logit_scale.data) <= 2.661


def test_what_cannot_be_trained_is_told(folder, small, tmp_path, monkeypatch):
    monkeypatch.setattr(clip, "PICTURES", 8)
    with pytest.raises(UserError, match="pictures of 30 pixels are no whole number of patches of 4"):
        train_clip(folder, tmp_path / "clip", steps=1, size=30)
    for name in COLOURS[1:]:
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()
    with pytest.raises(UserError, match="has a single caption"):
        train_clip(folder, tmp_path / "clip", steps=1, size=8)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        train_clip("shapes", tmp_path / "file" / "clip", steps=1)
