"""Drawing from more than words: the same whichever way it is asked for, and mistakes that are told in one line."""

import shutil

import numpy as np
import pytest
import tiny_pipeline

from minild.errors import UserError
from minild.models import LPIPS, LatentClassifier
from minild.pipelines import load
from minild.pipelines.conditions import encode, picture_embeddings, reduced, semantic_channels, usable_labels

CLASSES = ["circle", "red square", "Star"]
PLACES = {"semantic map": 3, "low resolution": 3, "masked": 3}  # channels beside the latents' two, f = 2


def make(condition):
    """The tiny pipeline led by something else: pictures 8 x 8, latents 4 x 4 x 2."""
    fields = {"class": {"num_class_embeds": 4}, "image": {"encoder_hid_dim": 64, "encoder_hid_dim_type": "image_proj"}}
    fields = fields.get(condition, {"in_channels": 2 + PLACES.get(condition, 0)})
    return tiny_pipeline.make_led(condition, CLASSES if condition in ("class", "semantic map") else [], **fields)


def classifier(classes=CLASSES, channels=2):
    config = {"in_channels": channels, "classes": classes, "block_out_channels": [8, 8], "norm_num_groups": 4}
    return LatentClassifier.from_config(config)


@pytest.fixture(scope="module")
def by_class():
    return make("class")


def test_a_class_by_number_and_by_name_alone_and_among_others(by_class):
    pictures = by_class.class_to_image([0, 1, 2], steps=3, seed=5)
    assert pictures.shape == (3, 8, 8, 3)
    for i, label in enumerate(["circle", "RED square", "2"]):
        np.testing.assert_array_equal(by_class.class_to_image(label, steps=3, seed=5 + i)[0], pictures[i])
    several = by_class.class_to_image("Star", steps=3, seed=[7, 5, 9])
    np.testing.assert_array_equal(several[0], pictures[2])
    assert len(several) == 3 and abs(several[0] - several[1]).max() > 1e-4


def test_guidance_leads_away_from_no_class(by_class):
    from minild.diffusion import SAMPLERS
    from minild.random import image_generators, standard_normal

    zeros, unet = np.zeros((1, 1, 8), np.float32), by_class.unet

    def predict(z, t):
        t = np.full(1, t, np.float32)
        told, nothing = (unet(z, t, zeros, np.array([label])) for label in (1, 3))
        return nothing + 2.5 * (told - nothing)

    noise = standard_normal(image_generators(5, 1), (4, 4, 2))
    *_, z = SAMPLERS["ddim"](predict, noise, by_class.schedule, 3)
    ours = by_class.class_to_image(1, steps=3, seed=5, guidance_scale=2.5)
    np.testing.assert_allclose(ours, by_class.decode(z), atol=1e-4)


def test_a_classifier_leads(by_class):
    asked = {"labels": [0, 2], "steps": 3, "seed": 5}
    plain = by_class.class_to_image(**asked)
    np.testing.assert_array_equal(
        by_class.class_to_image(**asked, classifier=classifier(), classifier_scale=0.0), plain
    )
    led = by_class.class_to_image(**asked, classifier=classifier(), classifier_scale=20.0)
    assert (abs(led - plain).max(axis=(1, 2, 3)) > 1e-3).all()
    alone = by_class.class_to_image(0, steps=3, seed=5, classifier=classifier(), classifier_scale=20.0)
    np.testing.assert_array_equal(alone[0], led[0])
    untold = [by_class.class_to_image(label, steps=3, classifier=classifier(), told=False) for label in (0, 2)]
    assert abs(untold[0] - untold[1]).max() > 1e-6


def test_a_classifier_leads_a_model_of_words():
    pipe = tiny_pipeline.make()
    drawn = [pipe.class_to_image(label, steps=3, classifier=classifier(), classifier_scale=9.0) for label in (0, 1)]
    assert abs(drawn[0] - drawn[1]).max() > 1e-4
    without = pipe.class_to_image(0, steps=3, classifier=classifier(), classifier_scale=0.0)
    np.testing.assert_array_equal(without, pipe.text_to_image("", steps=3, guidance_scale=1))


@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_what_is_made_of_a_picture_is_the_same_alone_and_among_others(rng, size):
    vae, pictures = tiny_pipeline.make().vae, rng.random((5, *size, 3), np.float32)
    for make_of in (lambda x: encode(vae, 2 * x - 1), picture_embeddings):
        together, alone = make_of(pictures), np.concatenate([make_of(each[None]) for each in pictures])
        np.testing.assert_array_equal(together, alone)


def test_a_semantic_map_is_shares_of_the_classes():
    maps = np.array([[[0, 0, 1, 1], [0, 2, 1, 1]]])
    np.testing.assert_allclose(semantic_channels(maps, 3, 2), [[[[0.75, 0, 0.25], [0, 1, 0]]]])


def test_reduced_is_the_mean_of_the_pixels(rng):
    pictures = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    expected = pictures.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(reduced(pictures, 2), expected, atol=1e-6)


def test_one_image_serves_all_seeds_and_bytes_are_as_good_as_numbers(rng):
    pipe = make("low resolution")
    picture = rng.integers(0, 256, (4, 6, 3), np.uint8)
    three = pipe.condition_to_image(picture, steps=2, seed=[1, 2, 3])
    assert three.shape == (3, 8, 12, 3)  # f times as large
    alone = pipe.condition_to_image(picture[None] / np.float32(255), steps=2, seed=2)
    np.testing.assert_array_equal(alone[0], three[1])


def test_what_is_not_masked_leads_what_is(rng):
    pipe = make("masked")
    mask, pictures = np.zeros((8, 8), bool), rng.random((2, 8, 8, 3), np.float32)
    mask[:, 4:] = True
    other = pictures.copy()
    other[:, :, 4:] = 0.2  # under the mask nothing is seen
    drawn = pipe.condition_to_image(pictures, mask, steps=2)
    np.testing.assert_array_equal(pipe.condition_to_image(other, mask.astype(int), steps=2), drawn)
    other[:, :, :4] = 0.2
    assert abs(pipe.condition_to_image(other, mask, steps=2) - drawn).max() > 1e-3


PICTURE = np.zeros((8, 8, 3), np.float32)
MASK = np.ones((8, 8), bool)
MISTAKES = {
    "no such number": ("class", ([3],), "no class '3': there are 0 circle, 1 red square, 2 Star"),
    "no such name": ("class", (["circle", "cat"],), "no class 'cat': there are 0 circle"),
    "negative": ("class", (-1,), "no class '-1'"),
    "nothing": ("class", (None,), "no class: give at least one"),
    "half a class": ("class", (1.5,), "no class '1.5'"),
    "pictures of several sizes": ("masked", ([PICTURE, PICTURE[1:]], MASK), "images: expected one array, got pictures"),
    "none": ("class", ([],), "no class: give at least one"),
    "wrong count": ("class", ([0, 1], 2, None, None, [1, 2, 3]), "2 labels do not go with 3 seeds"),
    "no picture": ("low resolution", (PICTURE[0],), r"expected pictures of shape \(N, H, W, 3\), got \(8, 3\)"),
    "no range": ("low resolution", (PICTURE + 2,), "expected uint8, or real numbers from 0 to 1"),
    "no whole latents": ("masked", (PICTURE[:7], MASK[:7]), "7 x 8 is not divisible by 2: use multiples of 2 pixels"),
    "no mask": ("masked", (PICTURE,), "needs masks: true where to draw"),
    "mask of another size": ("masked", (PICTURE, MASK[1:]), r"masks: expected shape \(1, 8, 8\) like the pictures"),
    "mask for nothing": ("low resolution", (PICTURE, MASK), "masks are for a model of masked pictures"),
    "map of a real": ("semantic map", (PICTURE[..., 0],), r"expected maps \(N, H, W\) of whole numbers, got float32"),
    "map of another": ("semantic map", (np.full((8, 8), 3),), "the numbers 3 to 3, where there are 0 circle"),
    "words": ("masked", (PICTURE, MASK, "a cat"), "the model takes no prompt: what leads it is masked"),
    "too small": ("image", (PICTURE,), "8 x 8 pixels are too few: use 16 or more"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake):
    condition, arguments, words = MISTAKES[mistake]
    pipe = make(condition)
    draw = pipe.class_to_image if condition == "class" else pipe.condition_to_image
    with pytest.raises(UserError, match=words) as caught:
        draw(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classifier": classifier(["a", "b", "c"])}, "knows other classes than the model: a, b, c"),
        ({"classifier": classifier(channels=3)}, "is of latents with 3 channels, not 2"),
        ({"classifier": "nowhere"}, "nowhere is no classifier"),
        ({"classifier": classifier(), "classifier_scale": float("nan")}, "classifier scale must be a finite number"),
    ],
)
def test_a_classifier_that_does_not_fit(by_class, changes, words):
    with pytest.raises(UserError, match=words):
        by_class.class_to_image(0, steps=2, **changes)


def test_the_wrong_way_to_draw_names_the_right_one(by_class):
    wrong = [
        (by_class.text_to_image, "what leads it is class, so use class_to_image"),
        (by_class.condition_to_image, "what leads it is class, so use class_to_image"),
        (make("masked").class_to_image, "what leads it is masked, so use condition_to_image"),
        (tiny_pipeline.make().condition_to_image, "what leads it is text, so use text_to_image"),
        (tiny_pipeline.make().class_to_image, "what leads it is text, so use text_to_image"),
    ]
    for draw, words in wrong:
        with pytest.raises(UserError, match=words):
            draw([0])


def test_a_name_that_is_a_number_is_a_name():
    assert usable_labels(["7", "3", "x"], ["3", "X", 0]).tolist() == [1, 2, 0]


def test_a_folder_whose_parts_do_not_fit_its_condition(tmp_path, by_class):
    by_class.record = by_class.record | {"classes": CLASSES[:2]}
    by_class.save_pretrained(tmp_path)
    by_class.record = by_class.record | {"classes": CLASSES}
    with pytest.raises(UserError, match="unet num_class_embeds is 4, number of classes, with none, 3"):
        load(tmp_path)
    for condition, words in [
        ("masked", "unet in_channels is 2, vae latent channels and masked 5"),
        ("image", "unet takes class labels, and minild.json does not say of what"),
    ]:
        (tmp_path / "minild.json").write_text(f'{{"condition": "{condition}"}}')
        with pytest.raises(UserError, match=words):
            load(tmp_path)
    for classes in ("3", '["a", 2]', '{"0": "a"}'):
        (tmp_path / "minild.json").write_text(f'{{"condition": "class", "classes": {classes}}}')
        with pytest.raises(UserError, match=r"minild.json: classes: expected a list of names, got"):
            load(tmp_path)
    for posterior in ('"mean"', "[]", "null"):
        (tmp_path / "minild.json").write_text(f'{{"posterior": {posterior}}}')
        with pytest.raises(UserError, match=r"minild.json: posterior: expected one of sample, mode, got"):
            load(tmp_path)


@pytest.mark.parametrize("condition", ["class", "semantic map", "low resolution", "masked", "image"])
def test_on_every_device_the_same(device, rng, condition):
    pipe, picture = make(condition), rng.random((16, 16, 3), np.float32)
    asked = {
        "class": {"labels": [0, 2], "classifier": classifier(), "classifier_scale": 5.0},
        "semantic map": {"images": np.arange(64).reshape(8, 8) % 3},
        "masked": {"images": picture, "masks": picture[..., 0] > 0.5},
    }.get(condition, {"images": picture})
    expected = draw(pipe, asked)
    for model in (pipe.vae, pipe.unet, *filter(None, [asked.get("classifier")])):
        model.to(device)
    np.testing.assert_allclose(draw(pipe, asked), expected, atol=1e-4)


def draw(pipe, asked):
    return (pipe.class_to_image if "labels" in asked else pipe.condition_to_image)(**asked, steps=3)


def of_images():
    return tiny_pipeline.make_led("image", encoder_hid_dim=64, encoder_hid_dim_type="image_proj")


def test_what_describes_pictures_is_in_the_folder(tmp_path, rng):
    pictures, pipe = rng.random((1, 16, 16, 3), np.float32), of_images()
    pipe.save_pretrained(tmp_path)
    drawn = load(tmp_path).condition_to_image(pictures, steps=2)
    np.testing.assert_array_equal(drawn, pipe.condition_to_image(pictures, steps=2))
    pipe.perceptual = load(tmp_path).perceptual
    for parameter in pipe.perceptual.parameters():
        parameter.data = -parameter.data
    pipe.save_pretrained(tmp_path)  # another network, which the folder's model then goes by
    other = load(tmp_path).condition_to_image(pictures, steps=2)
    np.testing.assert_array_equal(other, pipe.condition_to_image(pictures, steps=2))
    assert abs(other - drawn).max() > 1e-4
    shutil.rmtree(tmp_path / "perceptual")  # as folders were before they had it
    np.testing.assert_array_equal(load(tmp_path).condition_to_image(pictures, steps=2), drawn)


def test_a_network_of_another_width_does_not_fit(tmp_path):
    of_images().save_pretrained(tmp_path)
    small = LPIPS.from_config(load(tmp_path).perceptual.config | {"widths": [8, 8, 8, 8]})
    shutil.rmtree(tmp_path / "perceptual")
    small.save_pretrained(tmp_path / "perceptual")
    with pytest.raises(UserError, match="unet encoder_hid_dim is 64, width of perceptual 8"):
        load(tmp_path)
