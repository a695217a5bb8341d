"""CLIPModel: its gradients, where a text ends, what a folder may hold."""

import json
import math

import numpy as np
import pytest

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import CLIPModel, CLIPTextModel, CLIPVisionModel
from models.contrastive import ContrastiveCLIP, clip_inputs
from models.tiny import CLIP


@pytest.fixture
def model():
    return CLIPModel.from_config(CLIP)


def test_gradients(rng):
    check_module(ContrastiveCLIP.from_config(CLIP), clip_inputs(rng), differentiable=["x"], samples=6)


def test_image_encoder_gradients(rng):
    vision = CLIPVisionModel.from_config(CLIP["vision_config"] | {"num_channels": 2, "hidden_act": "gelu"})
    check_module(vision, {"x": rng.standard_normal((2, 8, 8, 2))}, samples=6)


def test_a_text_is_what_stands_before_its_end(rng, model):
    """What follows the first end token changes nothing, and what stands before it does."""
    ids = clip_inputs(rng)["token_ids"]
    assert model.ends(ids)[1].tolist() == [2, 4, 1]
    after, before = ids.copy(), ids.copy()
    after[0, 3:] = 4
    before[0, 1] = (before[0, 1] + 1) % 8
    texts = model.embed_texts(ids)
    np.testing.assert_allclose(model.embed_texts(after), texts, atol=1e-6)
    assert abs(model.embed_texts(before)[0] - texts[0]).max() > 1e-3


def test_configs_that_say_2_end_at_the_largest_id(rng):
    old = CLIPModel.from_config(CLIP | {"text_config": CLIP["text_config"] | {"eos_token_id": 2}})
    assert old.ends(np.array([[8, 2, 10, 3], [8, 10, 10, 2]]))[1].tolist() == [2, 1]


def test_embeddings_are_those_of_the_forward_at_length_one(rng, model):
    inputs = clip_inputs(rng)
    inputs["x"] = inputs["x"].astype("f")
    (images, texts), _ = model.forward(**inputs)
    embedded = model.embed_pictures(inputs["x"]), model.embed_texts(inputs["token_ids"])
    for ours, whole in zip(embedded, (images, texts), strict=True):
        np.testing.assert_allclose(ours, whole / np.linalg.norm(whole, axis=1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_the_logit_scale_is_limited(model):
    model.logit_scale.data = np.array(7.0, np.float32)
    model.limit_scale()
    assert float(model.logit_scale.data) == pytest.approx(math.log(100))
    model.logit_scale.data = np.array(-3.0, np.float32)
    model.limit_scale()
    assert float(model.logit_scale.data) == -3


def test_its_encoders_can_be_opened_alone(rng, model, tmp_path):
    model.save_pretrained(tmp_path)
    inputs = clip_inputs(rng)
    inputs["x"] = inputs["x"].astype("f")
    text, vision = CLIPTextModel.from_pretrained(tmp_path), CLIPVisionModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(text(inputs["token_ids"]), model.text_model(inputs["token_ids"]))
    np.testing.assert_array_equal(vision(inputs["x"]), model.vision_model(inputs["x"]))
    assert CLIPModel.from_pretrained(tmp_path).logit_scale.data.shape == ()


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("vision_config", {"patch_size": 3}, "patch_size = 3 does not divide image_size = 8"),
        ("vision_config", {"hidden_act": "tanh"}, "hidden_act = 'tanh'"),
        ("vision_config", {"num_attention_heads": 5}, "num_attention_heads = 5 does not divide"),
        ("text_config", {"width": 5}, "unknown field 'width'"),
    ],
)
def test_a_config_that_makes_no_sense_is_told(part, fields, message):
    with pytest.raises(UserError, match=message):
        CLIPModel.from_config(CLIP | {part: CLIP[part] | fields})
    with pytest.raises(UserError, match=f"{part} = 5 is not supported"):
        CLIPModel.from_config(CLIP | {part: 5})


def test_a_folder_with_a_config_of_another_size_is_told(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["image_size"] = 16
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"vision_model\.embeddings\.position_embedding\.weight"):
        CLIPModel.from_pretrained(tmp_path)


def test_pictures_of_another_size_are_told(model):
    with pytest.raises(ValueError, match=r"^x: expected pictures of \(8, 8, 3\), got \(2, 4, 8, 3\)"):
        model.vision_model(np.zeros((2, 4, 8, 3), "f"))
