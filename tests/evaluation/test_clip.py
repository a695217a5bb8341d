"""CLIP score and retrieval, by a CLIP whose embeddings are known; and the folders that make none."""

import json

import numpy as np
import pytest

from minild.errors import UserError
from minild.evaluation import CLIP, clip_scores, load_clip, retrieve
from minild.evaluation.clip import PREPROCESSOR
from minild.models import CLIPModel
from minild.tokenizer import CLIPTokenizer
from minild.training.clip import clip_config
from minild.training.presets import SHAPES

CAPTIONS = ["red", "green", "blue"]


class KnownCLIP(CLIP):
    """A picture is embedded as its mean colour, a caption as the colour it names; "dark" as the opposite of white."""

    def __init__(self):
        pass

    def embed_pictures(self, pictures):
        colours = pictures.mean(axis=(1, 2))
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)

    def embed_captions(self, captions):
        named = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "dark": (-1, -1, -1)}
        colours = np.array([named[caption] for caption in captions], float)
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def plain(*colours):
    return np.array(colours, float)[:, None, None] * np.ones((1, 2, 2, 1))


def test_clip_score_is_the_cosine_in_per_cent_and_never_negative():
    pictures = plain((1, 0, 0), (0.5, 0.5, 0), (0, 1, 0), (1, 1, 1))
    scores = clip_scores(pictures, ["red", "red", "red", "dark"], KnownCLIP())
    assert scores == pytest.approx([100, 100 / np.sqrt(2), 0, 0])
    with pytest.raises(ValueError, match="captions: expected one for each of 4 pictures, got 1"):
        clip_scores(pictures, ["red"], KnownCLIP())


def test_retrieval_finds_the_most_alike():
    pictures = plain((0.1, 0.2, 0.9), (0.8, 0.3, 0.1), (0.3, 0.2, 0.1), (0, 1, 0.9))
    assert retrieve(pictures, CAPTIONS, KnownCLIP()).tolist() == [2, 0, 0, 1]


@pytest.fixture
def folder(tmp_path):
    tokenizer = CLIPTokenizer.train(CAPTIONS, 600)
    tokenizer.max_length = 8
    config = clip_config(8, tokenizer, SHAPES)
    config["vision_config"] |= {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    CLIPModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_pictures_are_normalised_as_the_folder_says(rng, folder):
    pictures = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
    settings = PREPROCESSOR | {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 1.0, 2.0]}
    for mean, deviation, write in (([0.5] * 3, [0.5] * 3, False), ([0.1, 0.2, 0.3], [0.5, 1, 2], True)):
        if write:
            (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        clip = load_clip(folder)
        x = ((pictures / 255 - mean) / deviation).astype("f")
        expected = clip.model.embed_pictures(x)
        np.testing.assert_allclose(clip.embed_pictures(pictures), expected, atol=1e-6)
        np.testing.assert_allclose(clip.embed_pictures(pictures / 255), expected, atol=1e-6)
    assert clip.embed_captions(CAPTIONS).shape == (3, 128)
    with pytest.raises(ValueError, match=r"pictures: expected shape \(N, 8, 8, 3\), got \(3, 8, 4, 3\)"):
        clip.embed_pictures(pictures[:, :, :4])


def test_a_tokenizer_that_does_not_fit_is_told(folder):
    config = json.loads((folder / "config.json").read_text())
    tokenizer = CLIPTokenizer.train(["a", "of", "many", "more", "words", "than", "it", "knows", *CAPTIONS], 700)
    tokenizer.max_length = 8
    tokenizer.save_pretrained(folder)
    beyond = config["text_config"]["vocab_size"]
    with pytest.raises(UserError, match=f"ids beyond the text encoder's {beyond} tokens"):
        load_clip(folder)
    tokenizer = CLIPTokenizer.train(CAPTIONS, 600)
    tokenizer.max_length = 16
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="the tokenizer's texts have 16 tokens, the encoder's 8"):
        load_clip(folder)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        load_clip(tmp_path)
