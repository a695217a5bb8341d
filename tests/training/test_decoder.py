"""train_decoder: its gradients, that encoder and latents stay, that it decodes better; and what it refuses."""

import json

import numpy as np
import pytest
import tiny_pipeline

from minild import data
from minild.data.pictures import gather
from minild.errors import UserError
from minild.evaluation import psnr, rebuild
from minild.gradcheck import check_module
from minild.models import VQModel
from minild.pipelines import load
from minild.training import train_decoder
from minild.training.decoder import DecodingHalf, DecodingObjective
from training import small
from training.tiny_preset import TINY


def test_gradients(rng):
    check_module(DecodingHalf(small.autoencoder("float64")), {"z": rng.standard_normal((2, 4, 3, 2))}, samples=5)


def pictures_and_batch(vae, rng):
    pictures = rng.integers(0, 256, (7, 8, 6, 3), np.uint8)
    objective = DecodingObjective(vae, pictures, (4, 3, vae.latent_width(vae.config)))
    return objective, objective.batch(rng, 3, 0.0)


def test_what_is_compared_is_what_the_whole_autoencoder_gives_back(rng):
    vae = small.autoencoder()
    objective, batch = pictures_and_batch(vae, rng)
    _, cache = objective.forward(DecodingHalf(vae), batch)
    (whole, _), _ = vae.forward(batch[0] / np.float32(127.5) - 1, batch[1])
    np.testing.assert_allclose(cache.rebuilt, whole, atol=1e-5)


def test_a_vq_decoder_is_given_codes(rng):
    vae = small.drawn(VQModel.from_config(small.VQ))
    objective, batch = pictures_and_batch(vae, rng)
    _, cache = objective.forward(DecodingHalf(vae), batch)
    x = batch[0] / np.float32(127.5) - 1
    np.testing.assert_allclose(cache.rebuilt, vae.decode(vae.encode(x)), atol=1e-5)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_latents_are_off_by_as_much_as_is_said(rng, kind):
    vae = small.autoencoder() if kind == "kl" else small.drawn(VQModel.from_config(small.VQ))
    pictures = rng.integers(0, 256, (7, 8, 6, 3), np.uint8)
    vae.config["scaling_factor"] = 0.5
    objective = DecodingObjective(vae, pictures, (4, 3, vae.latent_width(vae.config)), latent_noise=0.3)
    *_, off = objective.batch(rng, 20_000, 0.0)
    deviations = off.std(axis=(1, 2, 3))
    assert np.sqrt((off**2).mean()) == pytest.approx(0.3 / 0.5, rel=0.03)  # the root mean square of |n| is 1
    assert (deviations < 0.1 * 0.6).mean() > 0.05 and (deviations > 2 * 0.6).mean() > 0.02  # and each has its own
    pictures, noise, off = objective.batch(rng, 3, 0.0)
    _, cache = objective.forward(DecodingHalf(vae), (pictures, noise, off))
    encoded = vae.encode(pictures / np.float32(127.5) - 1)
    if kind == "kl":
        z = encoded.mean + np.exp(0.5 * encoded.logvar) * noise + off
    else:
        z = vae.quantize(encoded + off)[0]
    np.testing.assert_allclose(cache.rebuilt, DecodingHalf(vae).forward(z)[0], atol=1e-5)


def test_the_decoder_alone_learns(rng):
    vae = small.autoencoder()
    objective, batch = pictures_and_batch(vae, rng)
    half = DecodingHalf(vae)
    vae.zero_grad()
    _, cache = objective.forward(half, batch)
    objective.backward(1.0, cache)
    for name, parameter in vae.named_parameters():
        learns = name.startswith(("decoder.", "post_quant_conv."))
        assert (parameter.grad is not None and parameter.grad.any()) == learns, name


@pytest.fixture
def model(tmp_path):
    """A tiny pipeline's folder."""
    tiny_pipeline.make().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_it_decodes_better_the_latents_that_there_were(model, tmp_path):
    before, out = load(model), tmp_path / "out"
    assert train_decoder(model, "shapes", out, steps=30, size=32, preset=TINY) == 30
    after = load(out)
    pictures, _ = gather(data.load("shapes", "test", 32), 16)
    x = pictures / np.float32(127.5) - 1
    np.testing.assert_array_equal(after.vae.encode(x).mean, before.vae.encode(x).mean)
    better, worse = (psnr(rebuild(pipe.vae, pictures), pictures).mean() for pipe in (after, before))
    assert better > worse + 1
    for name, weights in before.unet.state_dict().items():
        np.testing.assert_array_equal(after.unet.state_dict()[name], weights)
    assert after.record["learnt"] == ["to decode shapes"]
    lines = [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"decoder"} and (out / "training" / "decoder-000030.png").is_file()


@pytest.mark.parametrize("latent_noise", [0.0, 0.2])
def test_with_the_losses_of_scenes(model, tmp_path, latent_noise):
    """Perceptual and adversarial, as without a preset; the discriminator is no part of what is saved."""
    train_decoder(model, "shapes", tmp_path / "out", steps=2, size=32, latent_noise=latent_noise)
    assert sorted(path.name for path in (tmp_path / "out" / "vae").iterdir()) == sorted(
        path.name for path in (model / "vae").iterdir()
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 1}, "size 1 is not divisible by"),
        ({"latent_noise": -0.1}, "latent noise: expected a number from 0, got -0.1"),
        ({"latent_noise": float("nan")}, "latent noise: expected a number from 0, got nan"),
        ({"dataset": None}, "no pictures"),
        ({"size": 4}, "size 4 is too small for the perceptual distance"),
    ],
)
def test_refused(model, tmp_path, arguments, said):
    arguments = {"dataset": "emoji", "size": 32} | arguments
    with pytest.raises(UserError, match=said):
        train_decoder(model, output=tmp_path / "out", steps=1, **arguments)
    assert not (tmp_path / "out").exists()


def test_a_used_folder_is_refused(model):
    with pytest.raises(UserError, match="holds a model already"):
        train_decoder(model, "shapes", model, steps=1)
