"""The models against records of the reference's (tests/golden, whose make.py says how they were made)."""

from pathlib import Path

import numpy as np
import pytest

from minild import models
from minild.pretrained import read_json, read_weights
from models.passes import Pass, assert_same, cast, run

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = {
    "unet": models.UNet2DConditionModel,
    "autoencoder_kl": models.AutoencoderKL,
    "vq_model": models.VQModel,
    "clip_text": models.CLIPTextModel,
}


def read_record(folder):
    """The inputs of a pass, and the reference's Pass."""
    parts = {"inputs": {}, "outputs": {}, "gradients": {}}
    for key, array in read_weights(folder / "record.safetensors").items():
        part, name = key.split(".", 1)
        parts[part][name] = array
    return parts["inputs"], Pass(parts["outputs"], parts["gradients"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FOLDERS)
def test_outputs_and_gradients_are_the_references(name, dtype):
    inputs, (outputs, gradients) = read_record(GOLDEN / name)
    model = FOLDERS[name].from_pretrained(GOLDEN / name)
    assert gradients.keys() >= model.state_dict().keys() and len(gradients) > 30
    assert_same(run(model, inputs, dtype), Pass(cast(outputs, dtype), cast(gradients, dtype)), dtype)


@pytest.mark.parametrize("name", FOLDERS)
def test_our_folder_holds_the_references_keys_and_bits(name, tmp_path):
    model_class = FOLDERS[name]
    model_class.from_pretrained(GOLDEN / name).save_pretrained(tmp_path)
    ours, theirs = (read_weights(folder / model_class.weights_name) for folder in (tmp_path, GOLDEN / name))
    prefix = model_class.key_prefix  # the reference's later releases write without it and read both
    theirs = {prefix + key.removeprefix(prefix): array for key, array in theirs.items()}
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key], key)
    config, reference = (read_json(folder / "config.json") for folder in (tmp_path, GOLDEN / name))
    assert config.items() <= {"_class_name": model_class.__name__, **reference}.items()
