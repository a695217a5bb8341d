"""minild info: what it tells of a folder, of a single file, and of what goes with a pipeline."""

import json

import narrow_sd1
import numpy as np
import pytest
import tiny_pipeline
from refusal import refused
from safetensors.numpy import save_file

from minild.data.location import data_path
from minild.models import ControlNetModel, LatentClassifier
from minild.models.lora import add_updates, write_lora
from minild.pipelines import info
from minild.pipelines.learnt_tokens import write_embeddings


def test_info(run, model):
    status, out, err = run("info", "MODEL")
    assert (status, err) == (0, "")
    assert out.startswith(f"folder        {model}\n")
    assert "trained on    shapes at 8 x 8 pixels\n" in out
    assert "nowhere is no pipeline" in refused(run("info", "nowhere"))


def test_info_of_a_single_file(run, tmp_path, monkeypatch):
    pipe = narrow_sd1.make()
    narrow_sd1.write(pipe, tmp_path / "sd1.safetensors", "float16")
    monkeypatch.setattr(info, "CONFIGS", {part: getattr(pipe, part).config for part in info.CONFIGS})
    status, out, err = run("info", "sd1.safetensors")
    assert (status, err) == (0, "") and out.startswith("file          sd1.safetensors\n")
    for part in ("vae", "text_encoder", "unet"):
        model = getattr(pipe, part)
        assert f"{part:<14}{type(model).__name__}, {model.parameter_count():,} parameters, float16, " in out
    assert "pictures      64 x 64 pixels; latents 8 x 8 x 4, f = 8\n" in out
    assert "14 to a prompt\n" in out
    assert "\n              passed over 3 weights: " in out  # of the schedule, the moving average and the loss
    (tmp_path / "tokenizer").rename(tmp_path / "elsewhere")
    assert "sd1.safetensors needs a tokenizer" in refused(run("info", "sd1.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "sd1.safetensors").read_bytes()[:999])
    assert "cut.safetensors is not a whole safetensors file" in refused(run("info", "cut.safetensors"))


def test_info_of_a_classifier(run, tmp_path):
    config = {"in_channels": 2, "classes": ["dark", "light"], "block_out_channels": [8], "norm_num_groups": 4}
    LatentClassifier.from_config(config).save_pretrained(tmp_path / "clf")
    record = {"model": "shapes", "dataset": "set", "steps": 1220, "seconds": 180.2, "accuracy": 0.4312}
    (tmp_path / "clf" / "minild.json").write_text(json.dumps(record))
    status, out, err = run("info", "clf")
    assert (status, err) == (0, "")
    assert out.startswith("folder        clf\nholds         LatentClassifier, ")
    assert " parameters, float32, 0.0 MB\n" in out
    for line in (
        "latents       of 2 channels", "classes       0 dark, 1 light", "trained for   shapes", "trained on    set",
        "training      1,220 steps in 180 s", "accuracy      43.1 %",
    ):  # fmt: skip
        assert f"\n{line}\n" in out
    (tmp_path / "clf" / "minild.json").unlink()
    assert "trained for" not in run("info", "clf")[1]


@pytest.mark.parametrize(("name", "lines"), [
    ("clip", ("pictures      32 x 32 pixels, in patches of 4", "texts         589 tokens, 16 to a text",
              "both          128 numbers", "retrieval     96.7 % of 480 pictures find their caption among 32")),
    ("perceptual", ("levels        4, of 16, 32, 64, 64 channels", "accuracy      68.6 %")),
    ("shapes/vae", ("for           a part of a pipeline",)),
    ("shapes/text_encoder", ("for           a part of a pipeline",)),
])  # fmt: skip
def test_info_of_shipped_networks(run, name, lines):
    status, out, err = run("info", data_path("pretrained", *name.split("/")))
    assert (status, err) == (0, "") and "\nholds         " in out
    for line in lines:
        assert f"\n{line}\n" in out


def test_info_of_a_controlnet(run, tmp_path):
    ControlNetModel.from_unet(tiny_pipeline.make().unet, f=2).save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "minild.json").write_text('{"model": "shapes", "follows": "outlines"}')
    out = run("info", "net")[1]
    for line in (
        "pictures      of 3 channels, 2 times as large as the latents, which have 2 channels",
        "U-Net         of the widths 8, 16; words of 8 numbers",
        "follows       outlines",
    ):
        assert f"\n{line}\n" in out


def test_info_of_what_is_added_to_a_pipeline(run, tmp_path):
    pipe = tiny_pipeline.make()
    for part, rank in (("unet", 2), ("text_encoder", 3)):
        add_updates(getattr(pipe, part), part, "new", rank, 6, np.random.default_rng(2))
    write_lora(tmp_path / "l.safetensors", {part: getattr(pipe, part) for part in ("unet", "text_encoder")}, "new")
    status, out, err = run("info", "l.safetensors")
    assert (status, err) == (0, "") and out.startswith("file          l.safetensors\nholds         a LoRA, ")
    assert ": updates of 4 layers of the text_encoder and 32 layers of the unet\n" in out
    assert "\nrank          2 to 3; alpha 6\n" in out
    write_embeddings(tmp_path / "w.safetensors", "<mine>", np.ones((2, 8), np.float32))
    out = run("info", "w.safetensors")[1]
    assert "holds         a learnt word, <mine>: 2 vectors of 8 numbers\n" in out
    (tmp_path / "word").mkdir()
    (tmp_path / "w.safetensors").rename(tmp_path / "word" / "learned_embeds.safetensors")
    assert "a learnt word, <mine>: 2 vectors" in run("info", "word")[1]


def test_info_of_what_is_not_known(run, tmp_path):
    (tmp_path / "other").mkdir()
    for content, words in (
        ('{"_class_name": "T5EncoderModel"}', "holds 'T5EncoderModel', which is not known: minild knows LatentClassif"),
        ("{}", "other/config.json does not say what it holds"),
        ("[]", "does not hold a JSON object"),
        ('{"_class_name": ["LPIPS"]}', "other/config.json cannot be used: TypeError"),
        ('{"_class_name": "LPIPS"}', "no such file"),
        ('{"_class_name": "LatentClassifier", "in_channels": "two"}', "in_channels = 'two' is not supported"),
    ):
        (tmp_path / "other" / "config.json").write_text(content)
        assert words in refused(run("info", "other"))
    save_file({"unet.mid_block.lora_A.weight": np.ones((1, 2), np.float32)}, tmp_path / "half.safetensors")
    assert "has one matrix of two" in refused(run("info", "half.safetensors"))
    save_file({"<word>": np.ones((0, 8), np.float32)}, tmp_path / "none.safetensors")
    assert "where a learnt token has vectors" in refused(run("info", "none.safetensors"))
    save_file({"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, tmp_path / "any.safetensors")
    assert "any.safetensors is no whole Stable Diffusion 1.x" in refused(run("info", "any.safetensors"))
