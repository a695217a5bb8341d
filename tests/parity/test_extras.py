"""Folders with more in them than the model, and under other names, written by the reference and read by us."""

import inspect
import json

import numpy as np
import pytest
import transformers
from models.tiny import AUTOENCODER, TEXT, UNET

from minild import models
from minild.pretrained import read_weights, write_weights
from parity.reference import REFERENCES, diffusers, pair, torch

OURS = {
    "UNet2DConditionModel": (models.UNet2DConditionModel, UNET),
    "AutoencoderKL": (models.AutoencoderKL, AUTOENCODER),
    "CLIPTextModel": (models.CLIPTextModel, TEXT),
}


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "AutoencoderKL", "VQModel", "CLIPTextModel"])
def test_every_field_that_the_reference_knows_is_known(name):
    """So that a field passed over is one that the reference passes over, too."""
    theirs = transformers.CLIPTextConfig if name == "CLIPTextModel" else getattr(diffusers, name)
    fields = inspect.signature(theirs.__init__).parameters.keys() - {"self", "args", "kwargs"}
    ours = getattr(models, name)
    assert len(fields) > 10
    assert fields <= {*ours.defaults, *ours.only, *ours.inert}


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("variant", [None, "bf16", "fp16", "fp32", "non_ema"])
@pytest.mark.parametrize("name", OURS)
def test_variants_whole_and_sharded(tmp_path, rng, name, variant, shards):
    model, config = OURS[name]
    _, theirs = pair(name, config, "reference", tmp_path / "plain", rng)
    size = sum(parameter.numel() for parameter in theirs.parameters()) * 4
    limit = {"max_shard_size": size // 3} if shards else {}
    theirs.save_pretrained(tmp_path / "saved", variant=variant, **limit)
    files = sorted(path.name for path in (tmp_path / "saved").glob("*.safetensors"))
    assert (len(files) > 1) == shards and (variant is None or all(f".{variant}" in file for file in files))
    ours = model.from_pretrained(tmp_path / "saved")
    expected = model.from_pretrained(tmp_path / "plain").state_dict()
    assert expected.keys() == ours.state_dict().keys()
    for key, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, expected[key])


@pytest.mark.parametrize("name", OURS)
def test_what_the_reference_passes_over(tmp_path, rng, name):
    """The same weights in both, from a folder with fields of EMA training and weights of other parts."""
    model, config = OURS[name]
    pair(name, config, "reference", tmp_path, rng)
    fields = json.loads((tmp_path / "config.json").read_text())
    extra = {"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 5, "power": 0.66}
    (tmp_path / "config.json").write_text(json.dumps(fields | extra))
    file = tmp_path / model.weights_name
    beside = ["vision_model.x.weight", "text_projection.weight", "logit_scale", "model_ema.decay", "lora.up.weight"]
    write_weights(file, read_weights(file) | {key: np.ones((2, 2), "f") for key in beside})
    theirs = REFERENCES[name].from_pretrained(tmp_path).state_dict()
    ours = model.from_pretrained(tmp_path)
    assert sorted(phrase.split(":")[0] for phrase in ours.passed_over) == [
        "passed over 5 fields of config.json",
        "passed over 5 weights",
    ]
    for key, array in ours.state_dict().items():
        theirs_key = next(k for k in theirs if k.removeprefix("text_model.") == key)
        np.testing.assert_array_equal(array, theirs[theirs_key].to(torch.float32).numpy())
