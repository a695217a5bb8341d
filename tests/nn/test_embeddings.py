"""What leads a U-Net beside its latents: gradients by differences, and the tables of kinds."""

import numpy as np
import pytest
from models.tiny import LABELLED, PROJECTED, UNET, labels, unet_inputs

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import UNet2DConditionModel
from minild.nn.embeddings import ImageProjection, LabelEmbedding, SinusoidalEmbedding, TimestepEmbedding


def test_gradients(rng):
    check_module(TimestepEmbedding(3, 5), {"x": rng.standard_normal((4, 3))})
    check_module(SinusoidalEmbedding(6, 5), {"t": np.array([0.5, 7.25, 30.0])})
    check_module(LabelEmbedding(5, 3), {"labels": np.array([4, 0, 4, 2])})
    check_module(ImageProjection(3, 4, tokens=2), {"x": rng.standard_normal((3, 3))})


def test_a_label_is_a_row_of_the_table():
    embedding = LabelEmbedding(5, 3).initialise(np.random.default_rng(0))
    np.testing.assert_array_equal(embedding(np.array([4, 1])), embedding.weight.data[[4, 1]])
    assert embedding.weight.data.std() == pytest.approx(1, abs=0.4)


def float32(inputs):
    return {name: x.astype("f") if x.dtype.kind == "f" else x for name, x in inputs.items()}


@pytest.mark.parametrize("case", LABELLED)
def test_labels_change_what_is_predicted(rng, case):
    config, shape = LABELLED[case]
    model = UNet2DConditionModel.from_config(config)
    model.conv_out.weight.data = model.conv_out.weight.data + 1
    inputs = float32(unet_inputs(rng, config["in_channels"]))
    first, second = labels(rng, shape), labels(rng, shape)
    if shape is None:
        second = first[::-1].copy()
    assert abs(model(**inputs, class_labels=first) - model(**inputs, class_labels=second)).max() > 1e-4


@pytest.mark.parametrize(
    ("case", "wrong", "message"),
    [
        ("table", None, "expected an array, got None"),
        ("table", np.array([1.0, 2.0]), "expected whole numbers, got dtype float64"),
        ("table", np.array([1]), r"expected shape \(2,\), got \(1,\)"),
        ("timestep", np.array([[1.0], [2.0]]), r"expected shape \(2,\)"),
        ("timestep", np.array([True, False]), "expected numbers, got dtype bool"),
        ("identity", np.zeros((2, 16)), r"expected shape \(2, 32\)"),
        ("projection", np.zeros(2), r"expected shape \(2, 5\)"),
    ],
)
def test_wrong_labels_are_named(rng, case, wrong, message):
    config = LABELLED[case][0]
    with pytest.raises(ValueError, match=f"^class_labels: {message}"):
        UNet2DConditionModel.from_config(config)(**float32(unet_inputs(rng, config["in_channels"])), class_labels=wrong)


def test_labels_without_a_class_embedding_are_refused(rng):
    with pytest.raises(ValueError, match=r"^class_labels: expected None"):
        UNet2DConditionModel.from_config(UNET)(**float32(unet_inputs(rng, 3)), class_labels=np.array([1, 2]))


@pytest.mark.parametrize(("case", "shape"), [("text_proj", (2, 5, 6)), ("image_proj", (2, 5, 4))])
def test_a_context_of_the_cross_width_is_not_what_is_projected(rng, case, shape):
    inputs = float32(unet_inputs(rng, 3) | {"context": np.zeros(shape)})
    with pytest.raises(ValueError, match=r"^context: expected shape"):
        UNet2DConditionModel.from_config(PROJECTED[case][0])(**inputs)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"class_embed_type": "text"}, "class_embed_type = 'text' is not supported, use null, 'timestep'"),
        ({"class_embed_type": "projection"}, "projection_class_embeddings_input_dim = None is not supported"),
        ({"num_class_embeds": 0}, "num_class_embeds = 0 is not supported, use a whole number from 1"),
        ({"num_class_embeds": 2.5}, "num_class_embeds = 2.5"),
        (
            {"encoder_hid_dim_type": "ip_image_proj", "encoder_hid_dim": 3},
            "encoder_hid_dim_type = 'ip_image_proj' is not",
        ),
        ({"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim = None is not supported"),
    ],
)
def test_what_is_not_supported_is_named(fields, words):
    with pytest.raises(UserError, match=f"^UNet2DConditionModel: {words}"):
        UNet2DConditionModel.from_config(UNET | fields)
