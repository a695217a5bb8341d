"""A ControlNet that leads a drawing: both halves of guidance, sizes and counts, and what is refused."""

import json

import numpy as np
import pytest
import tiny_pipeline
from training.small import drawn

from minild.errors import UserError
from minild.models import ControlNetModel
from minild.pipelines.control import open_controlnet

PROMPTS = tiny_pipeline.CAPTIONS


@pytest.fixture(scope="module")
def controlnet():
    pipe = tiny_pipeline.make()
    return drawn(ControlNetModel.from_unet(pipe.unet, f=pipe.vae.downsampling))


@pytest.fixture
def control(rng):
    return rng.random((2, 12, 8, 3), np.float32)


def draw(pipe, *arguments, **settings):
    return pipe.text_to_image(*arguments, steps=3, sampler="ddim", **settings)


MASK = np.zeros((12, 8), bool)
MASK[3:9, 1:5] = True


def over(pipe, pictures, prompts, **settings):
    """Drawn over pictures."""
    return pipe.image_to_image(pictures, prompts, 0.7, steps=3, sampler="ddim", **settings)


def inside(pipe, pictures, prompts, **settings):
    """Drawn in the MASK."""
    return pipe.inpaint(pictures, MASK, prompts, 0.7, steps=3, sampler="ddim", **settings)


@pytest.mark.parametrize("begun", [over, inside])
def test_it_leads_what_begins_with_a_picture(pipe, controlnet, control, rng, begun):
    pictures, led = rng.random((2, 12, 8, 3), np.float32), {"controlnet": controlnet, "control": control}
    whole, none = (begun(pipe, pictures, PROMPTS, **led, control_scale=scale) for scale in (1.0, 0.0))
    np.testing.assert_array_equal(none, begun(pipe, pictures, PROMPTS))
    drawn = MASK if begun is inside else np.ones_like(MASK)
    assert np.abs(whole - none)[:, drawn].max() > 0.01
    np.testing.assert_array_equal(whole[:, ~drawn], pictures[:, ~drawn])
    alone = begun(pipe, pictures[1], PROMPTS[1], controlnet=controlnet, control=control[1], seed=1)
    np.testing.assert_array_equal(whole[1:], alone)


@pytest.mark.parametrize("begun", [over, inside])
def test_one_serves_several_of_the_other(pipe, controlnet, control, rng, begun):
    """One picture to begin with, two to follow; two, and one; and each with two seeds."""
    pictures, both = rng.random((2, 12, 8, 3), np.float32), {"controlnet": controlnet}
    for first, second in ((pictures[0], control), (pictures, control[0]), (pictures[0], control[0])):
        several = begun(pipe, first, PROMPTS[0], **both, control=second, seed=[4, 5])
        firsts, seconds = (np.broadcast_to(each, (2, 12, 8, 3)) for each in (first, second))
        alone = begun(pipe, firsts[1], PROMPTS[0], **both, control=seconds[1], seed=5)
        assert len(several) == 2
        np.testing.assert_array_equal(several[1:], alone)
    with pytest.raises(UserError, match="2 images do not go with 3 prompts"):
        begun(pipe, np.concatenate([pictures, pictures[:1]]), PROMPTS[0], **both, control=control)
    with pytest.raises(UserError, match="control: 8 x 12 pixels, where 12 x 8 are drawn: make them alike"):
        begun(pipe, pictures, PROMPTS, **both, control=control.swapaxes(1, 2))
    with pytest.raises(UserError, match="a picture to follow needs a ControlNet"):
        begun(pipe, pictures, PROMPTS, control=control)


def test_it_leads_a_model_that_fills_in_masks(controlnet, control, rng):
    """It looks at the latents alone, as the reference's do, whatever stands beside them."""
    nine = tiny_pipeline.make_led("masked", (), True, in_channels=5)
    pictures, led = rng.random((2, 12, 8, 3), np.float32), {"controlnet": controlnet, "control": control}
    whole, none = (inside(nine, pictures, PROMPTS, **led, control_scale=scale) for scale in (1.0, 0.0))
    np.testing.assert_array_equal(none, inside(nine, pictures, PROMPTS))
    assert np.abs(whole - none)[:, MASK].max() > 0.01
    np.testing.assert_array_equal(whole[:, ~MASK], pictures[:, ~MASK])


def test_outpainting_follows_a_picture_of_the_whole(pipe, controlnet, control):
    small, settings = np.zeros((8, 8, 3), np.float32), {"steps": 3, "controlnet": controlnet}
    drawn = pipe.outpaint(small, (4, 0, 0, 0), PROMPTS[0], **settings, control=control[0])
    assert drawn.shape == (1, 12, 8, 3)
    assert np.abs(drawn - pipe.outpaint(small, (4, 0, 0, 0), PROMPTS[0], **settings, control=control[1])).max() > 1e-4


def test_it_leads_and_its_scale_says_how_strongly(pipe, controlnet, control):
    led = [draw(pipe, PROMPTS, controlnet=controlnet, control=control, control_scale=s) for s in (1.0, 0.4, 0.0)]
    assert led[0].shape == (2, 12, 8, 3)
    alone = draw(pipe, PROMPTS, size=(12, 8))
    np.testing.assert_array_equal(led[2], alone)
    assert np.abs(led[0] - alone).max() > 0.01 and np.abs(led[1] - led[0]).max() > 0.001
    other = draw(pipe, PROMPTS, controlnet=controlnet, control=1 - control)
    assert np.abs(other - led[0]).max() > 1e-4


def test_a_new_one_changes_nothing(pipe, control):
    new = ControlNetModel.from_unet(pipe.unet, f=2)
    led = draw(pipe, PROMPTS, controlnet=new, control=control)
    np.testing.assert_array_equal(led, draw(pipe, PROMPTS, size=(12, 8)))


def test_one_picture_serves_all_and_each_is_drawn_as_alone(pipe, controlnet, control):
    whole = draw(pipe, PROMPTS, controlnet=controlnet, control=control[0], seed=4)
    alone = draw(pipe, PROMPTS[1], controlnet=controlnet, control=control[:1], seed=5)
    np.testing.assert_array_equal(whole[1:], alone)
    several = draw(pipe, PROMPTS[0], controlnet=controlnet, control=control, seed=4)
    np.testing.assert_array_equal(several[:1], whole[:1])
    assert several.shape == (2, 12, 8, 3)


def test_whole_numbers_are_255ths(pipe, controlnet, control):
    control = np.round(255 * control).astype(np.uint8)
    ours = draw(pipe, PROMPTS, controlnet=controlnet, control=control)
    as_real = draw(pipe, PROMPTS, controlnet=controlnet, control=control.astype(np.float32) / 255)
    np.testing.assert_array_equal(ours, as_real)


def test_a_folder(pipe, controlnet, control, tmp_path):
    controlnet.save_pretrained(tmp_path)
    opened = draw(pipe, PROMPTS, controlnet=tmp_path, control=control)
    np.testing.assert_array_equal(opened, draw(pipe, PROMPTS, controlnet=controlnet, control=control))
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "ControlNetModel"


@pytest.mark.parametrize(("change", "message"), [
    ({"control": None}, "a ControlNet needs a picture to follow"),
    ({"controlnet": None}, "a picture to follow needs a ControlNet"),
    ({"control_scale": float("nan")}, "control scale must be a finite number, got nan"),
    ({"control": np.zeros((2, 12, 7, 3), np.float32)}, "control: 12 x 7 is not divisible by 2"),
    ({"control": np.zeros((12, 8), np.float32)}, "control: expected pictures of shape"),
    ({"control": np.full((12, 8, 3), 2.0)}, "control: expected uint8, or real numbers from 0 to 1"),
    ({"control": np.zeros((3, 12, 8, 3), np.float32)}, "3 images do not go with 2 prompts"),
    ({"size": (8, 8)}, "control: 12 x 8 pixels, where 8 x 8 are drawn"),
    ({"latents": np.zeros((2, 6, 6, 2), np.float32)}, "control: 12 x 8 pixels, where 12 x 12 are drawn"),
    ({"controlnet": "nowhere"}, "nowhere is no ControlNet"),
])  # fmt: skip
def test_mistakes(pipe, controlnet, control, change, message):
    with pytest.raises(UserError, match=message):
        draw(pipe, PROMPTS, **{"controlnet": controlnet, "control": control} | change)


@pytest.mark.parametrize(("field", "value", "message"), [
    ("block_out_channels", [8, 24], r"its block_out_channels is \[8, 24\], not \[8, 16\]"),
    ("in_channels", 5, "its in_channels is 5, not 2"),
    ("cross_attention_dim", 6, "its cross_attention_dim is 6, not 8"),
    ("layers_per_block", 2, "its layers_per_block is 2, not 1"),
    ("conditioning_embedding_out_channels", [4, 4, 4], "its f is 4, not 2"),
    ("conditioning_channels", 1, "its conditioning_channels is 1, not 3"),
    ("num_class_embeds", 3, "it takes class labels"),
])  # fmt: skip
def test_one_of_another_model(pipe, controlnet, control, tmp_path, field, value, message):
    other = ControlNetModel.from_config(controlnet.config | {field: value})
    with pytest.raises(UserError, match=f"the ControlNet is of another model: {message}"):
        draw(pipe, PROMPTS, controlnet=other, control=control)
    other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path.name} is of another model: {message}"):
        open_controlnet(pipe, tmp_path)


def test_a_folder_of_something_else(pipe, tmp_path):
    pipe.unet.save_pretrained(tmp_path / "unet")
    (tmp_path / "file.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="a model of the class 'UNet2DConditionModel', which is not supported"):
        open_controlnet(pipe, tmp_path / "unet")
    with pytest.raises(UserError, match=r"file\.safetensors is no ControlNet"):
        open_controlnet(pipe, tmp_path / "file.safetensors")
