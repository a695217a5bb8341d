"""Every training writes its result whole, or not at all, whenever it is killed while it writes."""

import os
from functools import partial

import numpy as np
import pytest
import tiny_pipeline
from killed import killed_before

from minild import training
from minild.evaluation import load_clip
from minild.models import LPIPS, ControlNetModel, LatentClassifier
from minild.pipelines.learnt_tokens import write_embeddings
from minild.pretrained import read_weights
from minild.training import classifier, clip, perceptual
from minild.training.alone import is_used
from minild.training.budget import Budget

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


@pytest.fixture
def no_steps(monkeypatch):
    """No time goes into learning: what is written is as it began."""
    for module in (classifier, clip, perceptual):
        monkeypatch.setattr(module, "train_alone", lambda *arguments, **how: (Budget(steps=1), []))
    for module in (classifier, clip):
        monkeypatch.setattr(module.data, "load", lambda *arguments: Two())
    monkeypatch.setattr(clip, "retrieval_figures", lambda *arguments: {})
    monkeypatch.setattr(perceptual, "load_classes", lambda size: ([], [], ["a", "b"]))
    monkeypatch.setattr(perceptual, "_accuracy", lambda *arguments: 0.5)


class Two:
    """A data set of two pictures of 8 x 8 pixels."""

    name = "two"

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return np.full((8, 8, 3), 100 * i, np.uint8), self.captions(i)[0]

    def captions(self, i):
        return (["one", "other"][i],)


def train_classifier(output, model, **how):
    config = {"block_out_channels": [8, 8], "norm_num_groups": 4}
    training.train_classifier(model, output, dataset="two", config=config, **how)


def test_a_network_is_whole_or_its_folder_is_free(no_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "classes_of", lambda *arguments: ["one", "other"])
    monkeypatch.setattr(classifier, "class_names", lambda *arguments: ["one", "other"])
    tiny_pipeline.make().save_pretrained(tmp_path / "model")
    alone = {
        "clip": (partial(training.train_clip, "two", size=8), load_clip),
        "perceptual": (training.train_perceptual, LPIPS.from_pretrained),
        "classifier": (partial(train_classifier, model=tmp_path / "model"), LatentClassifier.from_pretrained),
    }
    for name, (train, read) in alone.items():
        call, seen = 0, []
        while killed_before(call, partial(train, tmp_path / f"{name}-{call}", steps=1)):
            folder = tmp_path / f"{name}-{call}"
            seen.append(is_used(folder))
            if seen[-1]:
                read(folder)
                assert (folder / "minild.json").is_file()
            call += 3
        assert not seen[0] and seen[-1] and seen == sorted(seen)
        last_free = tmp_path / f"{name}-{3 * (seen.index(True) - 1)}"
        train(last_free, steps=1)  # what a kill left is in nobody's way
        read(last_free)


def test_a_model_that_is_saved_again_is_the_old_or_the_new_one(tmp_path):
    """As a ControlNet is, now and then in its training."""
    models = [ControlNetModel.from_unet(tiny_pipeline.make().unet, 2, seed) for seed in (0, 1)]
    states = [model.state_dict() for model in models]

    def which():
        state = ControlNetModel.from_pretrained(tmp_path / "own").state_dict()
        same = [all(np.array_equal(state[key], own[key]) for key in state) for own in states]
        assert same.count(True) == 1
        return same.index(True)

    for turn, model in enumerate(models):
        call, seen = 0, []
        while killed_before(call, partial(model.save_pretrained, tmp_path / "own")):
            seen.append(which() if is_used(tmp_path / "own") else -1)
            call += 1
        assert seen[0] == turn - 1 and seen == sorted(seen) and which() == turn


def test_a_file_that_is_saved_again_is_the_old_or_the_new_one(tmp_path):
    """As a LoRA and a word are, now and then in their training."""
    file, call, seen = tmp_path / "word.safetensors", 0, []
    write_embeddings(file, "<a>", np.zeros((2, 3)))
    while killed_before(call, partial(write_embeddings, file, "<a>", np.ones((2, 3)))):
        seen.append(float(read_weights(file)["<a>"].mean()))
        call += 1
    assert seen[0] == 0 and seen[-1] == 1 and seen == sorted(seen)
