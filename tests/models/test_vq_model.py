"""VQModel: gradients where they are defined, what encode and decode mean, its config and its folder."""

import json

import numpy as np
import pytest

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import AutoencoderKL, VQModel
from minild.ops.quantize import nearest_code
from models.held import QuantizerHeld
from models.tiny import AUTOENCODER, VQ


@pytest.fixture
def model(rng):
    """Codes among the latents of its pictures, so that several are taken."""
    model = VQModel.from_config(VQ).astype("float64")
    z = model.encode(rng.standard_normal((4, 6, 4, 3))).reshape(-1, 4)
    model.quantize.embedding.weight.data = z[:12] + 0.1 * rng.standard_normal((12, 4))
    return model


def test_gradients(rng):
    model = VQModel.from_config(VQ)
    model.quantize = QuantizerHeld(model.quantize)
    check_module(model, {"x": rng.standard_normal((2, 6, 4, 3))}, samples=5, seed=2)  # this draws three codes in use
    indices, *_ = model.quantize.held
    assert len(np.unique(indices)) > 1


def test_forward_decodes_what_it_encodes(model, rng):
    x = rng.standard_normal((2, 6, 4, 3))
    (y, loss), _ = model.forward(x)
    z = model.encode(x)
    assert z.shape == (2, 3, 2, 4) and y.shape == x.shape and model.downsampling == 2
    np.testing.assert_allclose(model.decode(z), y, rtol=1e-12)
    codebook = model.quantize.embedding.weight.data
    e = codebook[((z[..., None, :] - codebook) ** 2).sum(axis=-1).argmin(axis=-1)]
    assert loss == pytest.approx(1.25 * np.mean((z - e) ** 2), rel=1e-12)
    assert np.abs(z - e).max() > 0.01  # encode does not quantise
    np.testing.assert_allclose(y, model.decoder(model.post_quant_conv(e)), rtol=1e-12)


def test_decode_quantizes(model):
    """A latent beside a code and that code are one picture; another code is another."""
    codebook = model.quantize.embedding.weight.data
    first, second = codebook[:2]
    z = np.broadcast_to(np.stack([first, 0.95 * first + 0.05 * second, second])[:, None, None], (3, 2, 3, 4))
    assert list(nearest_code(z[:, 0, 0], codebook)) == [0, 0, 1]
    pictures = model.decode(z)
    assert pictures.shape == (3, 4, 6, 3)
    np.testing.assert_allclose(pictures[1], pictures[0], rtol=1e-12)
    assert np.abs(pictures[2] - pictures[0]).max() > 1e-3


def test_the_loss_reaches_the_encoder_and_the_codes_and_not_the_decoder(model, rng):
    (y, _), cache = model.forward(rng.standard_normal((2, 6, 4, 3)))
    dx = model.backward((np.zeros_like(y), 1.0), cache)
    gradients = model.gradient_dict()
    for key, gradient in gradients.items():
        assert gradient.any() != key.startswith(("decoder.", "post_quant_conv.")), key
    assert dx.any()


def test_a_step_down_the_loss_draws_codes_and_latents_together(model, rng):
    x = rng.standard_normal((2, 6, 4, 3))
    (y, before), cache = model.forward(x)
    model.backward((np.zeros_like(y), 1.0), cache)
    for parameter in model.parameters():
        parameter.data = parameter.data - 0.01 * parameter.grad
    (_, after), _ = model.forward(x)
    assert after < 0.99 * before


def test_the_width_of_the_codes_is_that_of_the_latent_unless_given():
    for given, width in ((None, 3), (5, 5)):
        model = VQModel.from_config(VQ | {"vq_embed_dim": given})
        shapes = {key: array.shape for key, array in model.state_dict().items()}
        assert shapes["quantize.embedding.weight"] == (12, width)
        assert shapes["quant_conv.weight"] == (width, 3, 1, 1)
        assert shapes["post_quant_conv.weight"] == (3, width, 1, 1)
        assert shapes["decoder.conv_in.weight"] == (8, 3, 3, 3)


def test_the_latent_of_a_rebuilding_is_encode_for_codes_and_the_mean_for_a_posterior(model, rng):
    x = rng.standard_normal((2, 6, 4, 3))
    np.testing.assert_array_equal(model.mean_latent(x), model.encode(x))
    assert model.latent_width(model.config) == 4 and VQModel.latent_width(VQ | {"vq_embed_dim": None}) == 3
    kl = AutoencoderKL.from_config(AUTOENCODER).astype("float64")
    np.testing.assert_array_equal(kl.mean_latent(x), kl.encode(x).mean)
    assert kl.latent_width(kl.config) == kl.mean_latent(x).shape[-1] == 2


def test_beta_weighs_the_commitment_alone(model, rng):
    """The encoder's gradient of the quantiser's loss grows with β, the codebook's does not."""
    x, gradients = rng.standard_normal((2, 6, 4, 3)), []
    for beta in (0.25, 1.0):
        model.zero_grad()
        (y, _), cache = model.forward(x, beta)
        model.backward((np.zeros_like(y), 1.0), cache)
        gradients.append({key: gradient.copy() for key, gradient in model.gradient_dict().items()})
    for key, gradient in gradients[0].items():
        factor = 1 if key == "quantize.embedding.weight" else 4
        np.testing.assert_allclose(gradients[1][key], factor * gradient, rtol=1e-9, atol=1e-15, err_msg=key)


def test_codes_are_drawn_within_one_over_their_number():
    codebook = VQModel.from_config({"num_vq_embeddings": 400}).quantize.embedding.weight.data
    assert codebook.shape == (400, 3) and codebook.dtype == np.float32
    assert 0.99 / 400 < np.abs(codebook).max() <= 1 / 400 and abs(codebook.mean()) < 0.05 / 400


def test_a_folder_gives_the_model_back(model, rng, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "VQModel" and config["num_vq_embeddings"] == 12 and config["vq_embed_dim"] == 4
    again = VQModel.from_pretrained(tmp_path)
    assert again.config == model.config
    z = rng.standard_normal((1, 2, 3, 4)).astype("f")
    np.testing.assert_array_equal(again.decode(z), model.astype("float32").decode(z))


@pytest.mark.parametrize(("field", "value", "supported"), [
    ("norm_type", "spatial", "group"),
    ("lookup_from_codebook", True, False),
    ("act_fn", "relu", "silu"),
    ("down_block_types", ["AttnDownEncoderBlock2D", "DownEncoderBlock2D"], None),
])
def test_a_value_that_is_not_supported_is_named(field, value, supported):
    expected = "2 of DownEncoderBlock2D" if supported is None else repr(supported)
    with pytest.raises(UserError) as caught:
        VQModel.from_config(VQ | {field: value})
    assert str(caught.value) == f"VQModel: {field} = {value!r} is not supported, use {expected}"
    with pytest.raises(UserError, match="VQModel config: unknown field 'remap'"):
        VQModel.from_config(VQ | {"remap": "used.npy"})
