"""Pipelines whose autoencoder is a VQModel: drawn, described, written, read back, and refused where broken."""

import json

import numpy as np
import pytest
import tiny_pipeline
from safetensors.numpy import load_file, save_file

from minild import pipelines
from minild.errors import UserError
from minild.models import VQModel
from minild.pipelines.info import describe

PROMPT = tiny_pipeline.CAPTIONS[0]


@pytest.fixture
def vq():
    return tiny_pipeline.make_vq()


@pytest.fixture
def folder(vq, tmp_path):
    vq.save_pretrained(tmp_path / "vq")
    return tmp_path / "vq"


def test_a_picture_is_the_quantised_latents_decoded(vq):
    latents = np.random.default_rng(1).standard_normal((3, 4, 6, 2), np.float32)
    codebook = vq.vae.quantize.embedding.weight.data
    z = latents / 0.7
    codes = codebook[((z[..., None, :] - codebook) ** 2).sum(axis=-1).argmin(axis=-1)]
    expected = vq.vae.decoder(vq.vae.post_quant_conv(codes))
    np.testing.assert_allclose(vq.decode(latents), np.clip(expected / 2 + 0.5, 0, 1), atol=1e-6)
    assert len(np.unique(codes.reshape(-1, 2), axis=0)) > 3


def test_a_saved_pipeline_reads_back_bit_for_bit(vq, folder):
    assert json.loads((folder / "model_index.json").read_text())["vae"] == ["diffusers", "VQModel"]
    again = pipelines.load(folder)
    assert isinstance(again.vae, VQModel) and again.vae.config == vq.vae.config
    state, expected = again.vae.state_dict(), vq.vae.state_dict()
    assert state.keys() == expected.keys() and "quantize.embedding.weight" in state
    for name in expected:
        np.testing.assert_array_equal(state[name], expected[name])
    np.testing.assert_array_equal(*(pipe.text_to_image(PROMPT, steps=2) for pipe in (again, vq)))


def test_latents_have_the_codes_width_which_is_not_the_encoders(vq):
    assert vq.vae.config["latent_channels"] == 3
    assert vq.text_to_image(PROMPT, steps=1, size=(8, 12)).shape == (1, 8, 12, 3)
    with pytest.raises(UserError, match=r"expected shape \(N, h, w, 2\), got \(1, 4, 4, 3\)"):
        vq.text_to_image(PROMPT, steps=1, latents=np.zeros((1, 4, 4, 3)))


def test_info_tells_of_the_codes(folder):
    text = "\n".join(describe(folder))
    assert "vae           VQModel, " in text
    assert "8 x 8 pixels; latents 4 x 4 x 2, f = 2, quantised to 9 codes" in text


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def no_codebook(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["quantize.embedding.weight"]
    save_file(state, path)


DAMAGES = {
    "an index that says kl": (
        lambda folder: edit(folder / "model_index.json", vae=["diffusers", "AutoencoderKL"]),
        "holds a model of the class 'VQModel', which is not supported: use AutoencoderKL",
    ),
    "a folder that says kl": (
        lambda folder: edit(folder / "vae" / "config.json", _class_name="AutoencoderKL"),
        "holds a model of the class 'AutoencoderKL', which is not supported: use VQModel",
    ),
    "no codebook": (no_codebook, "missing quantize.embedding.weight"),
    "a codebook of another size": (
        lambda folder: edit(folder / "vae" / "config.json", num_vq_embeddings=12),
        r"quantize.embedding.weight has shape \(9, 2\), expected \(12, 2\)",
    ),
    "codes that are looked up": (
        lambda folder: edit(folder / "vae" / "config.json", lookup_from_codebook=True),
        "lookup_from_codebook = True is not supported",
    ),
}


@pytest.mark.parametrize("damage, message", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_folder_is_refused_in_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        pipelines.load(folder)
    assert "\n" not in str(caught.value)


def test_codes_of_another_width_do_not_fit_the_unet(vq, folder):
    vq.vae = VQModel.from_config(vq.vae.config | {"vq_embed_dim": None})
    vq.save_pretrained(folder)
    with pytest.raises(UserError, match="unet in_channels is 2, vae latent channels 3; unet out_channels is 2"):
        pipelines.load(folder)
