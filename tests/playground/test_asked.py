"""minild.playground.asked: what is drawn from what the page holds."""

import numpy as np
import pytest
import tiny_pipeline

from minild.errors import UserError
from minild.playground.asked import Asked, begun_with, require_playable, samplers, scaled_up

RED = tiny_pipeline.CAPTIONS[0]
ASKED = Asked(RED, "", "ddim", 2, 3.0, 5, 0.5)


def corner(side):
    """A mask of the top left quarter."""
    mask = np.zeros((side, side), bool)
    mask[: side // 2, : side // 2] = True
    return mask


def test_words_a_picture_and_a_mask_each_have_their_way(pipe, picture):
    settings = {"steps": 2, "guidance_scale": 3.0, "sampler": "ddim", "seed": 5}
    with_picture = ASKED._replace(picture=picture)
    with_mask = with_picture._replace(mask=corner(8))
    assert np.array_equal(ASKED.draw(pipe), pipe.text_to_image(RED, **settings)[0])
    assert np.array_equal(with_picture.draw(pipe), pipe.image_to_image(picture, RED, 0.5, **settings)[0])
    filled = with_mask.draw(pipe)
    assert np.array_equal(filled, pipe.inpaint(picture, corner(8), RED, **settings)[0])
    assert np.array_equal(filled[~corner(8)], picture[~corner(8)].astype(np.float32) / 255)
    away = ASKED._replace(negative_prompt="green")
    assert np.array_equal(away.draw(pipe), pipe.text_to_image(RED, "green", **settings)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty: say what to draw"),
        ({"seed": None}, "seed is empty: give a number"),
        ({"steps": None}, "steps is empty: give a number"),
        ({"guidance": None}, "guidance is empty: give a number"),
        ({"strength": None}, "strength is empty: give a number"),
    ],
)
def test_what_is_left_empty_is_refused(pipe, change, message):
    with pytest.raises(UserError, match=message):
        ASKED._replace(**change).require(pipe)


def test_a_model_made_for_masks_asks_for_one(picture):
    pipe = tiny_pipeline.make(record={"condition": "text+masked"})
    require_playable(pipe)
    ASKED._replace(picture=picture, mask=corner(8)).require(pipe)
    for asked in (ASKED, ASKED._replace(picture=picture)):
        with pytest.raises(UserError, match="this model fills in masks: give a picture, and paint over"):
            asked.require(pipe)


@pytest.mark.parametrize("condition", ["class", "image", "semantic map", "text+low resolution"])
def test_models_that_the_page_cannot_lead_are_refused(condition):
    with pytest.raises(UserError) as refused:
        require_playable(tiny_pipeline.make(record={"condition": condition}))
    assert str(refused.value).endswith(f"draws from words, and what leads this model is {condition}")


def test_a_model_of_no_size_is_refused():
    pipe = tiny_pipeline.make()
    pipe.unet.config["sample_size"] = None
    with pytest.raises(UserError, match="its config names none"):
        require_playable(pipe)


def test_samplers_are_those_that_draw_from_the_model(pipe):
    names = samplers(pipe)
    assert {"ddim", "euler", "unipc"} <= set(names)
    assert not {"ddim-inverse", "flow-euler"} & set(names)


def test_a_picture_scaled_up_for_the_page_comes_back_bit_for_bit(pipe, picture, file, layer):
    shown = scaled_up(picture)
    assert shown.shape == (512, 512, 3)
    assert begun_with(pipe, file(shown), [])[1] is None
    assert np.array_equal(begun_with(pipe, file(shown), [])[0], picture)
    assert np.array_equal(begun_with(pipe, file(picture), [])[0], picture)
    wide = np.concatenate([picture, picture], axis=1)
    assert np.array_equal(begun_with(pipe, file(scaled_up(wide)), [])[0], wide)
    assert np.array_equal(scaled_up(np.zeros((600, 400, 3), np.uint8)), np.zeros((600, 400, 3)))


def test_any_other_picture_is_made_to_fit(pipe, file):
    grey = np.full((90, 60, 3), 120, np.uint8)
    grey[0, 0] = 0
    fitted, mask = begun_with(pipe, file(grey), [])
    assert fitted.shape == (12, 8, 3) and mask is None
    assert abs(fitted.astype(int) - 120).max() < 10


def test_a_mask_is_where_most_of_a_pixel_is_painted_in_any_layer(pipe, picture, file, layer):
    shown = file(scaled_up(picture))
    other = np.zeros((512, 512), bool)
    other[-64 - 40 :, -64 - 20 :] = True  # the last pixel, and less than half of those beside it but for one side
    layers = [layer(corner(512)), layer(other)]
    expected = corner(8)
    expected[-1, -1] = expected[-2, -1] = True
    found = begun_with(pipe, shown, layers)
    assert np.array_equal(found[0], picture) and np.array_equal(found[1], expected)
    assert begun_with(pipe, shown, [layer(np.zeros((512, 512), bool))])[1] is None
    assert begun_with(pipe, None, [layer(np.zeros((512, 512), bool))]) == (None, None)


def test_masks_and_pictures_that_cannot_be_used(pipe, picture, file, layer, tmp_path):
    thin = np.zeros((512, 512), bool)
    thin[:, 30:34] = True
    with pytest.raises(UserError, match="the mask is too thin for the model's pixels: paint more"):
        begun_with(pipe, file(scaled_up(picture)), [layer(thin)])
    with pytest.raises(UserError, match="a mask is painted over a picture: give a picture first"):
        begun_with(pipe, None, [layer(thin)])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot read the picture: "):
        begun_with(pipe, str(tmp_path / "broken.png"), [])
    with pytest.raises(UserError, match="cannot read the mask: "):
        begun_with(pipe, file(scaled_up(picture)), [str(tmp_path / "broken.png")])
    with pytest.raises(UserError, match="1 x 5000 pixels is too long and thin"):
        begun_with(pipe, file(np.zeros((1, 5000, 3), np.uint8)), [])
