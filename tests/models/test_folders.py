"""Models from the folders that the reference writes: whole, in half precision, in shards; and what is refused."""

import json
from itertools import islice

import numpy as np
import pytest
from safetensors.numpy import save_file

from minild.errors import UserError
from minild.models import AutoencoderKL, UNet2DConditionModel
from models.tiny import AUTOENCODER, UNET

STEM = "diffusion_pytorch_model"
SHARDS = {f"{STEM}-00001-of-00002.safetensors": 5, f"{STEM}-00002-of-00002.safetensors": 999}
FP16_SHARDS = {f"{STEM}.fp16-00001-of-00002.safetensors": 5, f"{STEM}.fp16-00002-of-00002.safetensors": 999}
FORMS = [
    (f"{STEM}.safetensors", None),
    (f"{STEM}.safetensors.index.json", SHARDS),
    (f"{STEM}.fp16.safetensors", None),
    (f"{STEM}.safetensors.index.fp16.json", FP16_SHARDS),
]


@pytest.fixture
def saved(tmp_path):
    """An autoencoder, and the folder it was written to."""
    model = AutoencoderKL.from_config(AUTOENCODER, seed=3)
    model.save_pretrained(tmp_path)
    return model, tmp_path


def assert_equal_states(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name])


def store(folder, state, name, shards=None):
    """Weights as a file of that name, or in shards {file name: count of keys} with an index of that name."""
    if not shards:
        return save_file(state, folder / name)
    keys, places = iter(state), {}
    for file, count in shards.items():
        mine = list(islice(keys, count))
        save_file({key: state[key] for key in mine}, folder / file)
        places |= dict.fromkeys(mine, file)
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize(("name", "shards"), FORMS, ids=["whole", "shards", "fp16", "fp16 shards"])
def test_every_form_of_the_weights_is_found(saved, name, shards):
    model, folder = saved
    (folder / f"{STEM}.safetensors").unlink()
    state = {key: array.astype("float16") for key, array in model.state_dict().items()}
    store(folder, state, name, shards)
    again = AutoencoderKL.from_pretrained(folder, dtype="float16").state_dict()
    assert_equal_states(again, state)


def test_of_several_forms_the_one_with_more_bits_is_read(saved):
    model, folder = saved
    other = {key: array + 1 for key, array in model.state_dict().items()}
    store(folder, other, *FORMS[2])
    assert_equal_states(AutoencoderKL.from_pretrained(folder).state_dict(), model.state_dict())
    (folder / f"{STEM}.safetensors").unlink()
    store(folder, model.state_dict(), *FORMS[1])
    assert_equal_states(AutoencoderKL.from_pretrained(folder).state_dict(), model.state_dict())


def test_a_broken_index_of_shards_is_named(saved):
    model, folder = saved
    (folder / f"{STEM}.safetensors").unlink()
    store(folder, model.state_dict(), *FORMS[1])
    index = folder / FORMS[1][0]
    whole = json.loads(index.read_text())["weight_map"]
    first, second = SHARDS
    for places, message in [
        (None, "holds no weight_map of file names"),
        ({"conv": 3}, "holds no weight_map of file names"),
        (whole | {"conv": f"../{first}"}, "holds no weight_map of file names"),
        (whole | {"conv": "elsewhere.safetensors"}, r"cannot read .*elsewhere\.safetensors: no such file"),
        (whole | {"conv": first}, f"looks for conv in {first}, which does not hold it"),
        (whole | {"conv": "x.bin"}, r"x\.bin is a pickle"),
        ({key: place for key, place in whole.items() if place == first}, "missing"),
    ]:
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(UserError, match=message) as caught:
            AutoencoderKL.from_pretrained(folder)
        assert "\n" not in str(caught.value)
    (folder / second).write_bytes(b"")
    index.write_text(json.dumps({"weight_map": whole}))
    with pytest.raises(UserError, match=f"{second} is not a whole safetensors file"):
        AutoencoderKL.from_pretrained(folder)


@pytest.mark.parametrize("name", [f"{STEM}.bin", f"{STEM}.fp16.bin", "model.ckpt"])
def test_a_folder_of_pickles_is_refused_with_the_reason(saved, name):
    _, folder = saved
    (folder / f"{STEM}.safetensors").rename(folder / name)
    with pytest.raises(UserError, match=f"{name} is a pickle, which can run any code"):
        AutoencoderKL.from_pretrained(folder)


@pytest.mark.parametrize(("model_class", "config", "kind", "fields"), [
    (UNet2DConditionModel, UNET, "UNet3DConditionModel", {}),
    (UNet2DConditionModel, UNET, "UNetSpatioTemporalConditionModel", {"num_frames": 14}),
    (UNet2DConditionModel, UNET, "UNetMotionModel", {}),
    (AutoencoderKL, AUTOENCODER, "AutoencoderKLTemporalDecoder", {}),
])
def test_a_model_of_another_class_is_named(tmp_path, model_class, config, kind, fields):
    model_class.from_config(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": kind} | fields))
    with pytest.raises(UserError, match=f"holds a model of the class '{kind}'.* use {model_class.__name__}"):
        model_class.from_pretrained(tmp_path)
