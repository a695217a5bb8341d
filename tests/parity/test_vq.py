"""VQModel against the reference's: the same folder, outputs, codes and gradients, as close as passes.py states."""

import numpy as np
import pytest
from models.passes import assert_same, run
from models.tiny import VQ

from minild.models import VQModel
from minild.ops.quantize import nearest_code
from parity import reference
from parity.reference import channels_first, channels_last, pair, torch

VQ = VQ | {"block_out_channels": [8, 16], "norm_num_groups": 2}  # for 1e-5 to hold in float32: see test_models.py
NARROWER_CODES = VQ | {"latent_channels": 4, "vq_embed_dim": 2, "num_vq_embeddings": 20}
THREE_LEVELS = NARROWER_CODES | {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "vq_embed_dim": None,
}
NO_ATTENTION = VQ | {"mid_block_add_attention": False}
CONFIGS = {"narrower codes": NARROWER_CODES, "three levels": THREE_LEVELS, "wider codes, no attention": NO_ATTENTION}


def vq_pair(name, writer, folder, rng):
    """A pair whose codes are moved among the latents of a picture, and inputs with that picture."""
    config = CONFIGS[name]
    ours, theirs = pair("VQModel", config, writer, folder, rng)
    f = ours.downsampling
    x = rng.standard_normal((2, 6 * f, 4 * f, 3))
    z = ours.encode(x.astype("f"))
    latents = z.reshape(-1, z.shape[-1])
    chosen = latents[rng.choice(len(latents), config["num_vq_embeddings"])]
    codebook = (chosen + 0.1 * rng.standard_normal(chosen.shape)).astype("f")
    ours.load_state_dict(ours.state_dict() | {"quantize.embedding.weight": codebook})
    with torch.no_grad():
        theirs.quantize.embedding.weight.copy_(torch.from_numpy(codebook))
    inputs = {"x": x, "z": rng.standard_normal(z.shape), "dy": rng.standard_normal(x.shape), "dloss": np.array(3.0)}
    return ours, theirs, inputs


WRITERS = pytest.mark.parametrize("writer", ["minild", "reference"])


@WRITERS
@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_of_either_is_read_by_the_other_with_no_changed_bit(tmp_path, rng, name, writer):
    ours, theirs = (model.state_dict() for model in pair("VQModel", CONFIGS[name], writer, tmp_path, rng))
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        assert array.tobytes() == theirs[key].numpy().tobytes() and array.shape == tuple(theirs[key].shape), key


@WRITERS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_gradients(tmp_path, rng, name, dtype, writer):
    ours, theirs, inputs = vq_pair(name, writer, tmp_path, rng)
    assert_same(run(ours, inputs, dtype), reference.run(theirs, inputs, dtype), dtype)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_place_takes_the_references_code(tmp_path, rng, name):
    ours, theirs, inputs = vq_pair(name, "minild", tmp_path, rng)
    z = inputs["z"].astype("f")
    z_q, _, (_, _, indices) = theirs.quantize(channels_first(z))
    codebook = ours.quantize.embedding.weight.data
    np.testing.assert_array_equal(nearest_code(z, codebook).reshape(-1), indices.numpy())
    np.testing.assert_allclose(ours.quantize(z)[0], channels_last(z_q), atol=1e-6)
    assert len(set(indices.tolist())) > 3


def test_the_reference_alone_puts_beta_on_the_codebook(tmp_path, rng):
    """Its "legacy": the loss is the same number, with a quarter of our codebook's gradient."""
    ours, theirs, inputs = vq_pair("narrower codes", "minild", tmp_path, rng)
    z = inputs["z"].astype("f")
    (_, loss), cache = ours.quantize.forward(z)
    ours.quantize.backward((np.zeros_like(z), 1.0), cache)
    theirs.quantize.legacy = True
    _, loss_, _ = theirs.quantize(channels_first(z))
    loss_.backward()
    assert loss == pytest.approx(loss_.item(), rel=1e-5)
    expected = theirs.quantize.embedding.weight.grad.numpy()
    np.testing.assert_allclose(0.25 * ours.quantize.embedding.weight.grad, expected, atol=1e-6)


def test_the_codebook_is_drawn_as_the_references(rng):
    ours = VQModel.from_config({"num_vq_embeddings": 50, "latent_channels": 4}).quantize.embedding.weight.data
    theirs = reference.REFERENCES["VQModel"](num_vq_embeddings=50, latent_channels=4).quantize.embedding.weight
    for codebook in (ours, theirs.detach().numpy()):
        assert codebook.shape == (50, 4)
        assert 0.9 / 50 < np.abs(codebook).max() <= 1 / 50 and abs(codebook.mean()) < 0.2 / 50
