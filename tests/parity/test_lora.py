"""LoRAs and learnt words: what is trained here draws the same picture in the reference, and the other way round."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from safetensors.numpy import save_file

from minild import pipelines
from minild.models import CLIPTextModel
from minild.training import train_lora, train_textual_inversion, tuning
from parity import test_pipeline
from parity.reference import diffusers, torch
from parity.test_pipeline import assert_same_pictures, both_draw

with_peft = pytest.mark.skipif(not diffusers.utils.is_peft_available(), reason="no peft, by which diffusers has LoRA")
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def open_reference(folder):
    """The reference's pipeline, without what clip_skip needs: it hides that the text encoder's keys have no prefix."""
    reference = test_pipeline.open_reference(folder)
    vars(reference.text_encoder).pop("text_model", None)
    return reference


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    pipe = tiny_pipeline.make(record=tiny_pipeline.RECORD)
    pipe.text_encoder = CLIPTextModel.from_config(pipe.text_encoder.config | {"num_hidden_layers": 2})
    rng = np.random.default_rng(1)
    for parameter in pipe.text_encoder.parameters():
        parameter.data = parameter.data + 0.3 * rng.standard_normal(parameter.data.shape, np.float32)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def bare(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "draw_sheet", lambda *arguments: None)
    (tmp_path / "set").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (200, 40 * i, 30)).save(tmp_path / "set" / f"{i}.png")
    return tmp_path / "set"


def compare(tiny, reference, rng, load, prompts=("a red circle", "a blue square")):
    """Both draw, ours after `load` has been given the pipeline; the picture is not that of the pipeline alone."""

    class Loaded:
        @staticmethod
        def load(folder):
            pipe = pipelines.load(folder)
            load(pipe)
            return pipe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parity.test_pipeline.pipelines", Loaded)
        mine, theirs = both_draw(tiny, reference, (4, 8), np.random.default_rng(3), prompts=list(prompts))
    assert_same_pictures(mine, theirs)
    alone, _ = both_draw(tiny, open_reference(tiny), (4, 8), np.random.default_rng(3), prompts=list(prompts))
    assert np.abs(alone - mine).max() > 1e-2


@with_peft
@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_lora_that_is_trained_here(tiny, bare, tmp_path, rng, text_encoder):
    file = tmp_path / "lora.safetensors"
    settings = {"steps": 8, "rank": 2, "alpha": 5, "learning_rate": 0.1, "batch_size": 2}
    train_lora(tiny, bare, file, prompt="a red circle", text_encoder=text_encoder, **settings)
    reference = open_reference(tiny)
    reference.load_lora_weights(tmp_path, weight_name=file.name)
    assert reference.unet.peft_config["default_0"].lora_alpha == 5
    compare(tiny, reference, rng, lambda pipe: pipe.load_lora(file))


def random_lora(pipe, name, seed, alpha=4, rank=2):
    """A LoRA of the reference's own, with weights drawn at random, in its U-Net and its text encoder."""
    from peft import LoraConfig, inject_adapter_in_model

    for model, targets in ((pipe.unet, ATTENTION), (pipe.text_encoder, ["q_proj", "v_proj", "fc1"])):
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
        inject_adapter_in_model(config, model, name)
        model.peft_config = {name: config}
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if f".{name}." in key:
                    parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


@with_peft
def test_a_random_lora_of_the_reference(tiny, tmp_path, rng):
    """Written by its save_lora_weights, with and without what it says of alpha; loaded again by both."""
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    pipe = open_reference(tiny)
    random_lora(pipe, "default", 4)
    layers = {
        "unet_lora_layers": get_peft_model_state_dict(pipe.unet),
        "text_encoder_lora_layers": get_peft_model_state_dict(pipe.text_encoder),
    }
    said = _collate_lora_metadata({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
    for name, metadata in (("said", said), ("unsaid", {})):
        pipe.save_lora_weights(tmp_path, weight_name=f"{name}.safetensors", **layers, **metadata)
        reference = open_reference(tiny)
        reference.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors")
        compare(tiny, reference, rng, lambda ours, name=name: ours.load_lora(tmp_path / f"{name}.safetensors"))


@with_peft
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # there are to be two
@pytest.mark.parametrize("merged", [False, True])
def test_two_at_once(tiny, tmp_path, rng, merged):
    from peft.utils import get_peft_model_state_dict

    for name, seed in (("one", 5), ("two", 6)):
        pipe = open_reference(tiny)
        random_lora(pipe, name, seed, alpha=2)
        layers = {
            "unet_lora_layers": get_peft_model_state_dict(pipe.unet, adapter_name=name),
            "text_encoder_lora_layers": get_peft_model_state_dict(pipe.text_encoder, adapter_name=name),
        }
        pipe.save_lora_weights(tmp_path, weight_name=f"{name}.safetensors", **layers)
    reference = open_reference(tiny)
    for name in ("one", "two"):
        reference.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors", adapter_name=name)
    reference.set_adapters(["one", "two"], [0.7, -0.4])

    def load(ours):
        ours.load_lora(tmp_path / "one.safetensors", 0.7)
        ours.load_lora(tmp_path / "two.safetensors", -0.4)
        if merged:
            ours.loras.merge()

    compare(tiny, reference, rng, load)


@with_peft
def test_a_file_of_kohyas_scripts(tiny, tmp_path, rng):
    """Of attentions, feed-forward layers and projections, with an alpha."""
    from minild.models.lora import named_layers

    state, ours = {}, pipelines.load(tiny)
    for start, model in (("lora_unet_", ours.unet), ("lora_te_text_model_", ours.text_encoder)):
        for path, layer, _ in named_layers(model):
            if path.endswith((*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "_proj", "fc1", "fc2")):
                *kernel, inputs, outputs = layer.weight.shape
                key, ones = start + path.replace(".", "_"), (1,) * len(kernel)
                state[f"{key}.lora_down.weight"] = 0.4 * rng.standard_normal((2, inputs, *ones), np.float32)
                state[f"{key}.lora_up.weight"] = 0.4 * rng.standard_normal((outputs, 2, *ones), np.float32)
                state[f"{key}.alpha"] = np.array(1.0, np.float32)
    save_file(state, tmp_path / "kohya.safetensors")
    reference = open_reference(tiny)
    reference.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    compare(tiny, reference, rng, lambda pipe: pipe.load_lora(tmp_path / "kohya.safetensors"))


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_word_that_is_trained_here(tiny, bare, tmp_path, rng, vectors):
    file = tmp_path / "learned_embeds.safetensors"
    train_textual_inversion(tiny, bare, file, "<thing>", vectors=vectors, steps=3, learning_rate=0.5, batch_size=2)
    reference = open_reference(tiny)
    reference.load_textual_inversion(tmp_path)
    compare(tiny, reference, rng, lambda pipe: pipe.load_textual_inversion(file), ("a <thing>", "two <THING> <thing>s"))


def test_a_random_word_of_the_reference(tiny, tmp_path, rng):
    """As its script writes it: (n, D) under the token."""
    from safetensors.torch import save_file as save_tensors

    file = tmp_path / "learned_embeds.safetensors"
    save_tensors({"<cat-toy>": torch.randn((2, 8), generator=torch.manual_seed(7))}, file)
    reference = open_reference(tiny)
    reference.load_textual_inversion(tmp_path)
    compare(tiny, reference, rng, lambda pipe: pipe.load_textual_inversion(file), ("a <cat-toy> above", "<cat-toy>"))
