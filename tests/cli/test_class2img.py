"""minild class2img: what it draws, writes and prints; and what the other commands say of a model without words."""

import json
import shutil

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.models import LatentClassifier, UNet2DConditionModel
from minild.models.lora import add_updates, write_lora
from minild.pipelines import load

CLASSES = ["circle", "red square", "star"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A tiny pipeline that three classes lead."""
    folder, pipe = tmp_path_factory.mktemp("pipelines") / "labelled", tiny_pipeline.make()
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | {"num_class_embeds": 4})
    pipe.unet.conv_out.weight.data = pipe.unet.conv_out.weight.data + 0.1
    pipe.text_encoder = pipe.tokenizer = None
    pipe.record = {"condition": "class", "classes": CLASSES, "guidance_scale": 2.0, "dataset": "shapes", "size": 32}
    pipe.save_pretrained(folder)
    return folder


def test_class2img_writes_pngs(run, labelled, tmp_path):
    status, out, err = run("class2img", "red square", 2, "--model", labelled, "--steps", 2, "--count", 2, "--seed", 3)
    assert (status, err) == (0, "") and out == "".join(f"red-square-{i}.png\n" for i in range(4))
    pictures = load(labelled).class_to_image([1, 1, 2, 2], steps=2, seed=3)
    for i, label in enumerate(["red square", "red square", "2", "2"]):
        with Image.open(tmp_path / f"red-square-{i}.png") as image:
            assert abs(np.asarray(image) / 255 - pictures[i]).max() <= 0.5 / 255 + 1e-6
            said = {"class": label, "seed": str(3 + i), "guidance": "2.0", "steps": "2", "sampler": "ddim"}
            assert image.text.items() >= said.items()


def test_the_picture_says_which_weights_drew_it(run, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "pipe")
    for part in ("vae", "unet"):
        weights = tmp_path / "pipe" / part / "diffusion_pytorch_model.safetensors"
        shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert run("class2img", 0, "--model", "pipe", "--steps", 1, "--variant", "fp16", "--output", "a.png")[0] == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["variant"] == "fp16" and image.text["model"] == "pipe"


def test_class2img_writes_numbers(run, labelled, tmp_path):
    options = "--output", "both.npy", "--guidance", 1, "--sampler", "euler", "--seed", "4,9"
    assert run("class2img", "star", "CIRCLE", "--model", labelled, "--steps", 2, *options) == (0, "both.npy\n", "")
    expected = load(labelled).class_to_image([2, 0], 2, 1, "euler", [4, 9])
    np.testing.assert_array_equal(np.load(tmp_path / "both.npy"), expected)


@pytest.mark.parametrize(("arguments", "words"), [
    (["cat"], "no class 'cat': there are 0 circle, 1 red square, 2 star"),
    (["3"], "no class '3': there are 0 circle, 1 red square, 2 star"),
    (["-1"], "no class"),
    (["star", "--count", 10**11], "100,000,000,000 pictures are too many for one command: ask for 10,000 at most"),
    ([], "required: LABEL"),
    (["star", "--steps", 0], "--steps"),
    (["star", "--seed", "1,2"], "2 seeds for 1 picture"),
    (["star", "--classifier", "nowhere"], "nowhere is no classifier"),
    (["star", "--output", "a.gif"], "expected a name that ends in .png or .npy"),
])
def test_a_mistake_is_one_line_and_writes_nothing(run, labelled, tmp_path, arguments, words):
    arguments = ["--", *arguments] if arguments == ["-1"] else arguments
    assert words in refused(run("class2img", "--model", labelled, *arguments))
    assert list(tmp_path.iterdir()) == []


def test_commands_of_words_refuse_a_model_of_classes(run, labelled):
    line = refused(run("txt2img", "star", "--model", labelled))
    assert "what leads it is class, so use class_to_image (minild class2img)" in line
    assert "what leads it is text, so use text_to_image (minild txt2img)" in refused(
        run("class2img", "star", "--model", "MODEL")
    )


def test_evaluate_asks_for_the_classes_of_the_test_pictures(run, labelled, tmp_path):
    for i, kind in enumerate(CLASSES):
        (tmp_path / "set" / kind).mkdir(parents=True)
        Image.new("RGB", (8, 8), (99 * i, 0, 0)).save(tmp_path / "set" / kind / "0.png")
    shutil.copytree(labelled, tmp_path / "pipe")
    record = json.loads((labelled / "minild.json").read_text()) | {"dataset": "set", "size": 8}
    (tmp_path / "pipe" / "minild.json").write_text(json.dumps(record))
    status, out, _ = run("evaluate", "pipe", "--steps", 2, "--json", "f.json")
    assert status == 0 and "pictures drawn  " in out
    assert json.loads((tmp_path / "f.json").read_text())["drawn"] == 3
    line = refused(run("evaluate", labelled, "--dataset", "emoji", "--steps", 2, "--count", 2))
    assert "no class 'Smileys & Emotion': there are 0 circle, 1 red square, 2 star" in line


def test_info_lists_the_classes(run, labelled):
    status, out, _ = run("info", labelled)
    assert status == 0 and "led by        class\nclasses       0 circle, 1 red square, 2 star\n" in out
    assert "tokenizer" not in out and "text_encoder" not in out


SILU = """
import numpy as np


def silu(x):
    gate = 1 / (1 + np.exp(-x))
    return x * gate, (x, gate)


def silu_backward(dy, cache):
    x, gate = cache
    return dy * gate * (1 + x * (1 - gate))
"""


def test_class2img_of_another_size_and_with_own_ops(run, labelled, tmp_path):
    (tmp_path / "mine.py").write_text(SILU)
    options = "--model", labelled, "--steps", 2, "--size", "12x8"
    status, out, err = run("class2img", "star", *options, "--with", "mine.py")
    assert (status, out) == (0, "star.png\n") and "in place of minild's own" in err
    with Image.open(tmp_path / "star.png") as image:
        assert image.size == (8, 12) and image.text["with"] == "mine.py"


def test_a_lora_of_the_model(run, labelled, tmp_path):
    """One of the U-Net fits; what is of words does not."""
    pipe, rng = load(labelled), np.random.default_rng(2)
    for update in add_updates(pipe.unet, "unet", "random", 2, None, rng).values():
        update.lora_B.weight.data = rng.standard_normal(update.lora_B.weight.shape).astype("f")
    write_lora(tmp_path / "a.safetensors", {"unet": pipe.unet}, "random")

    def picture(*options):
        outcome = run("class2img", "star", "--model", labelled, "--steps", 2, "--output", "p.png", *options)
        assert outcome == (0, "p.png\n", "")
        with Image.open(tmp_path / "p.png") as image:
            return np.asarray(image).astype(int), image.text.get("lora")

    (alone, none), (led, said) = picture(), picture("--lora", "a.safetensors:0.7")
    assert none is None and said == "a.safetensors:0.7" and abs(alone - led).max() > 2
    np.testing.assert_array_equal(picture("--lora", "a.safetensors:0")[0], alone)
    text = tiny_pipeline.make().text_encoder
    add_updates(text, "text_encoder", "random", 2, None, rng)
    write_lora(tmp_path / "words.safetensors", {"text_encoder": text}, "random")
    asked = ("class2img", "star", "--model", labelled)
    assert "words.safetensors does not fit the model, which has no text_encoder" in refused(
        run(*asked, "--lora", "words.safetensors")
    )
    assert "no such file" in refused(run(*asked, "--lora", "nowhere.safetensors"))
    assert "--embedding" in refused(run(*asked, "--embedding", "a.safetensors"))


def test_a_classifier_leads_a_model_of_words_without_guidance(run, tmp_path):
    config = {"in_channels": 2, "classes": CLASSES, "block_out_channels": [8], "norm_num_groups": 4}
    LatentClassifier.from_config(config).save_pretrained(tmp_path / "clf")
    asked = ("class2img", "star", "--model", "MODEL", "--classifier", "clf", "--steps", 1)
    assert run(*asked) == (0, "star.png\n", "")
    with Image.open(tmp_path / "star.png") as image:
        assert image.text.items() >= {"guidance": "1.0", "classifier": "clf"}.items()
    status, _, err = run(*asked, "--guidance", 3)
    assert status == 0 and err.startswith("minild: not used: --guidance, for the classifier alone leads")
    assert "guidance must be a finite number, got nan" in refused(run(*asked, "--guidance", "nan"))
