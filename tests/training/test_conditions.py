"""Trainings led by something else than words: each writes a folder that opens and draws, led by what it is given."""

import dataclasses
import json

import numpy as np
import pytest
from models.tiny import LABELLED, PROJECTED, TEXT, UNET
from PIL import Image

from minild import training
from minild.backend import to_host
from minild.data.shapes import SEMANTIC, Shapes, semantic_map
from minild.diffusion import NoiseSchedule
from minild.errors import UserError
from minild.models import AutoencoderKL, Condition, UNet2DConditionModel
from minild.pipelines import load
from minild.pipelines.info import describe
from minild.pipelines.low_resolution import usual_augmentation
from minild.training import leads, run, stage
from minild.training.conditioning import EARLY, Augmented, Choices, Conditioning, Frozen
from minild.training.flat import flatten
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.presets import PRESETS, StagePreset
from training.small import drawn

PRESET = dataclasses.replace(
    PRESETS["shapes"],
    autoencoder=StagePreset(learning_rate=3e-3, batch_size=4),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=4),
    channels=(8, 8, 16),
    unet_channels=(16, 16),
    text_width=32,
    text_layers=1,
    pictures=32,
)
PICTURES = Shapes("test").draw(range(2))[0]
MAPS = np.stack([Shapes("test").semantic_map(i) for i in range(2)])
MASKS = np.zeros((32, 32), bool)
MASKS[8:20] = True
CASES = {  # how to draw two pictures of each kind, and the U-Net's channels
    "class": ({"labels": [3, "Circle and star"]}, 4),
    "semantic map": ({"images": MAPS}, 4 + 5),
    "low resolution": ({"images": PICTURES[:, ::4, ::4]}, 4 + 3),
    "masked": ({"images": PICTURES, "masks": MASKS}, 4 + 1 + 4),
    "image": ({"images": PICTURES}, 4),
    "text+masked": ({"images": PICTURES, "masks": MASKS, "prompts": "a red circle above a blue square"}, 4 + 1 + 4),
}


@pytest.fixture(scope="module", autouse=True)
def little_work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SAMPLES", 2)
        patch.setattr(stage, "SHEETS", 1)
        patch.setattr(leads, "MASKED_PICTURES", 2 * PRESET.pictures)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(condition) -> the folder of a training of four steps a stage, made once."""
    folders = {}

    def get(condition):
        if condition not in folders:
            folders[condition] = tmp_path_factory.mktemp("led") / "run"
            training.train("shapes", folders[condition], steps=4, seed=4, preset=PRESET, condition=condition)
        return folders[condition]

    return get


def draw(pipe, arguments, **more):
    method = pipe.class_to_image if "labels" in arguments else pipe.condition_to_image
    return method(**arguments, steps=3, **more)


def awake(pipe):
    """The pipeline with a last layer as of a longer training, so that its U-Net predicts something."""
    weight = pipe.unet.conv_out.weight
    weight.data = np.random.default_rng(0).standard_normal(weight.data.shape, np.float32) / 5
    return pipe


@pytest.mark.parametrize("condition", CASES)
def test_a_training_is_led_and_its_folder_draws(trained, condition):
    folder, (arguments, channels) = trained(condition), CASES[condition]
    pipe = awake(load(folder))
    assert pipe.kinds == tuple(condition.split("+")) and pipe.unet.config["in_channels"] == channels
    pictures = draw(pipe, arguments)
    assert pictures.shape == (2, 32, 32, 3) and pictures.dtype == np.float32
    np.testing.assert_array_equal(draw(pipe, arguments), pictures)
    swapped = {name: x[::-1] if name in ("labels", "images") else x for name, x in arguments.items()}
    other = draw(pipe, swapped)
    assert (abs(other - pictures).max(axis=(1, 2, 3)) > 1e-4).all()  # of the same noise: the condition did it
    plain, strong = (draw(pipe, arguments, guidance_scale=scale) for scale in (1.0, 3.0))
    assert abs(plain - strong).max() > 1e-4
    assert len(list((folder / "training").glob("diffusion-*.png"))) == 1
    assert f"led by        {condition}" in describe(folder)


@pytest.mark.parametrize("condition", CASES)
def test_what_is_saved_again_draws_the_same(trained, tmp_path, condition):
    pipe = load(trained(condition))
    pipe.save_pretrained(tmp_path / "again")
    again, arguments = load(tmp_path / "again"), CASES[condition][0]
    np.testing.assert_array_equal(draw(again, arguments), draw(pipe, arguments))
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    words = "text" in condition
    assert (index["text_encoder"] != [None, None]) == (tmp_path / "again" / "text_encoder").is_dir() == words
    kind = {"text+masked": "Inpaint", "low resolution": "Upscale"}.get(condition, "")
    assert index["_class_name"] == f"StableDiffusion{kind}Pipeline"


def test_the_references_index_says_what_leads(trained, tmp_path):
    """Without minild.json: id2label as the reference's DiTPipeline has it, and its class of an inpainting pipeline."""
    for condition in ("class", "text+masked"):
        pipe = load(trained(condition))
        pipe.save_pretrained(tmp_path / condition)
        (tmp_path / condition / "minild.json").unlink()
        again = load(tmp_path / condition)
        assert again.kinds == pipe.kinds and again.classes == pipe.classes


def test_a_training_by_class_goes_on_as_it_was_begun(trained, tmp_path):
    out = tmp_path / "run"
    settings = {"seed": 4, "preset": PRESET}
    training.train("shapes", out, steps=2, condition="class", **settings)
    training.train("shapes", out, steps=4, resume=True, **settings)
    assert load(out).kinds == ("class",) and load(out).record["stages"]["diffusion"]["steps"] == 4
    assert "--condition class" in load(out).record["command"]


def test_a_condition_is_the_same_in_any_spelling_when_it_goes_on(tmp_path):
    settings = {"seed": 4, "preset": PRESET, "condition": "semantic-map"}
    training.train("shapes", tmp_path, steps=1, **settings)
    training.train("shapes", tmp_path, steps=2, resume=True, **settings)
    with pytest.raises(UserError, match="with condition semantic map, not low resolution: leave --condition out"):
        training.train("shapes", tmp_path, steps=3, resume=True, **settings | {"condition": "low_resolution"})


def test_a_frozen_text_encoder_stays_as_it_is(trained, tmp_path):
    words = trained("text+masked")
    preset = dataclasses.replace(PRESET, condition="text", text_encoder=str(words))
    training.train("shapes", tmp_path / "run", steps=3, preset=preset)
    ours, theirs = load(tmp_path / "run"), load(words)
    assert ours.kinds == ("text",) and ours.tokenizer.vocabulary == theirs.tokenizer.vocabulary
    for name, array in theirs.text_encoder.state_dict().items():
        np.testing.assert_array_equal(ours.text_encoder.state_dict()[name], array)
    assert ours.text_to_image("a red circle above a blue square on a white background", steps=2).shape[0] == 1


def pictures_in_folders(folder, count, per):
    for i in range(count):
        (folder / f"kind {i}").mkdir(parents=True)
        for j in range(per):
            Image.fromarray(PICTURES[(i + j) % 2]).save(folder / f"kind {i}" / f"{j}.png")


def test_sub_folders_are_classes(tmp_path):
    pictures_in_folders(tmp_path / "many", 2, 3)
    training.train(tmp_path / "many", tmp_path / "out", steps=2, condition="class", preset=PRESET)
    assert load(tmp_path / "out").classes == ["kind 0", "kind 1"]


MISTAKES = {
    "unknown": ("colour", "shapes", "unknown condition 'colour': use one of text, image, class, semantic map"),
    "two of a kind": ("masked+low resolution", "shapes", "text goes with one of semantic map, low resolution, masked"),
    "words and class": ("text+class", "shapes", "is not supported"),
    "no maps": ("semantic map", "emoji", "emoji has no semantic maps"),
    "no classes": ("class", "FOLDER", "4 classes for 4 pictures: put the pictures of a class into one folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, mistake):
    condition, dataset, words = MISTAKES[mistake]
    pictures_in_folders(tmp_path / "lone", 4, 1)
    dataset = tmp_path / "lone" if dataset == "FOLDER" else dataset
    with pytest.raises(UserError, match=words.replace("+", r"\+")) as caught:
        training.train(dataset, tmp_path / "out", steps=1, condition=condition, preset=PRESET)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def led(condition, unet, text_encoder=None):
    """A Denoiser and its objective in float64: latents 4 x 6 x 3, three pictures."""
    rng = np.random.default_rng(6)
    latents = rng.standard_normal((2, 3, 4, 6, 3))
    objective = DiffusionObjective(*latents, 0.8, None, None, NoiseSchedule(), condition=condition)
    return drawn(Denoiser(UNet2DConditionModel.from_config(unet), text_encoder), "float64"), objective


def float64(batch):
    return [x.astype(float) if x.dtype.kind == "f" else x for x in batch]


def test_the_gradient_of_each_condition_is_the_slope_of_its_loss(rng):
    labels = Choices("class_labels", np.array([[1], [5], [3]]), 6)
    channels = Choices("channels", rng.standard_normal((3, 2, 4, 6, 2)), 0)
    picture = Choices("context", rng.standard_normal((3, 1, 4)), 0)
    for parts, unet in [
        ([labels], LABELLED["table"][0]),
        ([channels], UNET | {"in_channels": 5}),
        ([picture], PROJECTED["image_proj"][0]),
    ]:
        model, objective = led(Conditioning(parts, 0.5), unet)
        batch = float64(objective.batch(rng, 2, 0.0))
        weights, gradient = (flatten(model, field).array for field in ("data", "grad"))
        objective.backward(0.7, objective.forward(model, batch)[1])
        middle, direction, losses = weights.copy(), rng.standard_normal(weights.size), []
        for step in (1e-6, -1e-6):
            weights[:] = middle + step * direction
            losses.append(0.7 * objective.forward(model, batch)[0]["loss"])
        slope = (losses[0] - losses[1]) / 2e-6
        assert gradient @ direction == pytest.approx(slope, rel=1e-6) and abs(slope) > 1e-3


def test_labels_and_channels_lead_on_every_device(device, rng):
    parts = [
        Choices("class_labels", np.array([[1], [5], [3]]), 6),
        Choices("channels", rng.standard_normal((3, 2, 4, 6, 2), np.float32)),
    ]
    model, objective = led(Conditioning(parts), LABELLED["table"][0] | {"in_channels": 5})
    batch = [x.astype("f") if x.dtype.kind == "f" else x for x in objective.batch(rng, 2, 0.0)]
    model.astype("float32")
    expected = float(objective.forward(model, batch)[0]["loss"])
    model.to(device)
    losses, cache = objective.forward(model, batch)
    objective.backward(1.0, cache)
    assert float(losses["loss"]) == pytest.approx(expected, rel=1e-4)
    assert abs(to_host(model.unet.class_embedding.weight.grad)).max() > 0


@pytest.mark.parametrize("condition", ["low-resolution", "text+low-resolution"])
def test_scenes_are_upscaled_by_four(condition):
    own, upscaling = PRESETS["scenes"], PRESETS["scenes"].choose(condition=condition)
    assert own.unet_config(64)["sample_size"] == own.choose(condition="class").unet_config(64)["sample_size"] == 8
    assert upscaling.unet_config(64)["sample_size"] == 16 and upscaling.latent_width == 4
    assert upscaling.choose(**upscaling.choices) == upscaling  # as a training that goes on has it
    assert PRESETS["shapes"].choose(condition=condition).channels == PRESETS["shapes"].channels


def test_a_picture_is_as_noisy_as_the_model_is_told(rng):
    augmentation, pictures = usual_augmentation(), rng.standard_normal((3, 1, 4, 6, 3)).astype("f")
    captions = Choices("context", np.arange(3)[:, None, None], -1)
    both = Augmented([captions, Choices("channels", pictures)], augmentation, 0.5)
    assert both.fields == ["context", "channels", "class_labels"]
    rows = np.arange(4000) % 3
    words, noisy, levels = both.batch(rng, rows, 0.0)
    assert (levels.min(), levels.max()) == (0, 350) and noisy.dtype == np.float32
    assert np.mean(words == -1) == pytest.approx(0.5, abs=0.03)
    signal, noise = augmentation.schedule.noise_levels(levels)
    added = (noisy - signal * pictures[rows, 0]) / noise
    assert np.mean(added) == pytest.approx(0, abs=0.01) and np.std(added) == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(levels, words.ravel())[0, 1]) < 0.1
    alone = Augmented([Choices("channels", pictures, 0)], augmentation, 0.5)
    noisy, levels = alone.batch(rng, rows, 0.0)
    nothing = (noisy == 0).all(axis=(1, 2, 3))
    assert np.mean(nothing) == pytest.approx(0.5, abs=0.03) and levels[nothing].std() > 90


def test_the_gradient_of_a_noisy_picture_reaches_the_table_of_levels(rng):
    pictures = Choices("channels", rng.standard_normal((3, 1, 4, 6, 3)).astype("f"), 0)
    unet = LABELLED["table"][0] | {"in_channels": 6, "num_class_embeds": 351}
    model, objective = led(Augmented([pictures], usual_augmentation()), unet)
    batch = float64(objective.batch(rng, 2, 0.0))
    objective.backward(1.0, objective.forward(model, batch)[1])
    gradient = model.unet.class_embedding.weight.grad
    assert set(np.flatnonzero(abs(gradient).max(axis=1))) == set(batch[-1].tolist())


def test_a_frozen_encoder_gets_no_gradient(rng):
    from minild.models import CLIPTextModel

    encoder = drawn(CLIPTextModel.from_config(TEXT | {"hidden_size": 6, "num_hidden_layers": 1}), "float64")
    captions = Conditioning([Choices("context", rng.integers(0, 11, (3, 1, 5)), 0)])
    model, objective = led(captions, UNET, Frozen(encoder))
    assert [name for name, _ in model.named_parameters() if not name.startswith("unet.")] == []
    objective.backward(1.0, objective.forward(model, float64(objective.batch(rng, 2, 0.0)))[1])
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_visit_shows_one_of_the_values_or_nothing():
    values = np.arange(5)[:, None] * 10 + np.arange(3)
    kept = Choices("channels", values)
    rows, rng = np.arange(20_000) % 5, np.random.default_rng(8)
    both = Conditioning([Choices("context", values, -1, first=0.9), kept], dropout=0.2)
    assert both.fields == ["context", "channels"]
    first, second = both.batch(rng, rows, EARLY / 2)
    dropped = first == -1
    assert dropped.mean() == pytest.approx(0.2, abs=0.015) and (second >= 0).all()
    assert np.array_equal(first[~dropped] // 10, rows[~dropped]) and np.array_equal(second // 10, rows)
    assert np.mean(first[~dropped] % 10 == 0) == pytest.approx(0.9, abs=0.015)
    assert np.bincount(second % 10) / 20_000 == pytest.approx([1 / 3] * 3, abs=0.015)
    later, _ = both.batch(rng, rows, EARLY)
    assert np.mean(later[later >= 0] % 10 == 0) == pytest.approx(1 / 3, abs=0.015)


def test_a_semantic_map_shows_the_objects_where_they_are():
    shapes = Shapes()
    for i in range(5):
        scene, picture, shown = shapes.scene(i), shapes[i][0], shapes.semantic_map(i)
        assert {SEMANTIC[n] for n in np.unique(shown)} == {"background", *(shape for shape, _ in scene.objects)}
        assert shown.shape == (32, 32) and semantic_map(scene, 64).shape == (64, 64)
        outside = picture[shown == 0].astype(int)
        corner = picture[0, 0].astype(int)
        assert np.mean(abs(outside - corner).max(axis=1) > 128) < 0.1


def test_the_masked_latents_are_of_what_is_not_masked(rng):
    from models.tiny import AUTOENCODER

    from minild.pipelines.conditions import encode, masked_channels

    vae = AutoencoderKL.from_config(AUTOENCODER | {"scaling_factor": 0.5})
    pictures, masks = rng.random((2, 6, 4, 3), np.float32), np.zeros((2, 6, 4), bool)
    masks[0, :4, 2:] = True
    channels = masked_channels(vae, pictures, masks)
    assert channels.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(channels[..., 0], masks[:, ::2, ::2])
    pictures[0, :4, 2:] = 0.5  # grey
    np.testing.assert_allclose(channels[..., 1:], encode(vae, 2 * pictures - 1), atol=1e-6)
    np.testing.assert_allclose(encode(vae, 2 * pictures - 1), vae.encode(2 * pictures - 1).mean / 2, atol=1e-6)


def test_a_condition_of_some_of_the_pictures():
    condition = Condition(class_labels=np.arange(4), channels=np.zeros((4, 1, 1, 2))).of(slice(1, 3))
    assert condition.class_labels.tolist() == [1, 2] and condition.channels.shape[0] == 2 and condition.context is None


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["class", "low resolution", "image"])
def test_what_is_learned_is_what_the_condition_says(tmp_path, condition):
    """Pictures of one grey each, dark or light: each is drawn as its condition has it."""
    rng, shades = np.random.default_rng(0), {"dark": (0, 70), "light": (185, 255)}
    for kind, (low, high) in shades.items():
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(24):
            Image.new("RGB", (16, 16), (int(rng.integers(low, high)),) * 3).save(tmp_path / "set" / kind / f"{i}.png")
    preset = dataclasses.replace(PRESET, diffusion=StagePreset(learning_rate=3e-3, batch_size=16))
    training.train(tmp_path / "set", tmp_path / "run", steps=300, size=16, condition=condition, preset=preset)
    pipe = load(tmp_path / "run")
    if condition == "class":
        drawn = pipe.class_to_image(["dark"] * 4 + ["light"] * 4, steps=20, guidance_scale=2.0)
    else:
        side = 4 if condition == "low resolution" else 16
        given = np.repeat([0.15, 0.85], 4)[:, None, None, None] * np.ones((8, side, side, 3))
        drawn = pipe.condition_to_image(given, steps=20, guidance_scale=2.0)
    means = drawn.mean(axis=(1, 2, 3))
    assert means[4:].mean() - means[:4].mean() > 0.3 and means[4:].min() > means[:4].max(), means
