"""The loss that trains a VQModel, and its gradients, against PyTorch: the reference's model, the losses written out."""

import numpy as np
import pytest
from models.passes import assert_close

from minild.engine import using
from minild.training import autoencoder as stage_one
from minild.training import codebook
from minild.training.codebook import CodebookTracker, VQObjective
from parity.reference import channels_first, torch
from parity.test_vq import CONFIGS, vq_pair

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
BETA, WEIGHT = 0.6, 0.8


def their_loss(model, x, beta, moves):
    z = model.quant_conv(model.encoder(x))
    vectors, codes = z.permute(0, 2, 3, 1), model.quantize.embedding.weight
    nearest = torch.cdist(vectors.reshape(-1, vectors.shape[-1]), codes).argmin(dim=1)
    e = codes[nearest].reshape(vectors.shape).permute(0, 3, 1, 2)
    y = model.decoder(model.post_quant_conv(z + (e - z).detach()))
    commitment, drawn = ((z - e.detach()) ** 2).mean(), ((z.detach() - e) ** 2).mean()
    quantizer = beta * commitment + (0 if moves else drawn)
    l1, mse = (y - x).abs().mean(), ((y - x) ** 2).mean()
    loss = l1 + stage_one.SQUARED * mse + WEIGHT * quantizer
    return {"loss": loss, "l1": l1, "mse": mse, "quantizer": quantizer}, nearest


@pytest.mark.parametrize("moves", [False, True], ids=["codes by gradient", "codes that are moved"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients(tmp_path, rng, monkeypatch, name, dtype, moves):
    ours, theirs, inputs = vq_pair(name, "minild", tmp_path, rng)
    ours.astype(dtype)
    theirs.to(getattr(torch, dtype))
    x = (0.5 * inputs["x"]).astype(dtype)
    monkeypatch.setattr(codebook, "to_signed", lambda pictures: pictures)
    tracker = CodebookTracker(ours.config["num_vq_embeddings"], ours.latent_width(ours.config), moves)
    objective = VQObjective(x, tracker, BETA, WEIGHT)
    with using("textbook"):
        losses, cache = objective.forward(ours, (x,))
        objective.backward(0.5, cache)
    expected, nearest = their_loss(theirs, channels_first(x), BETA, moves)
    (0.5 * expected["loss"]).backward()
    np.testing.assert_array_equal(losses["rows"]["codes"].ravel(), nearest.numpy())
    assert len(nearest.unique()) > 3
    for key, loss in expected.items():
        assert float(losses[key]) == pytest.approx(loss.item(), rel=TOLERANCE[dtype])
    gradients = ours.gradient_dict()
    for key, parameter in theirs.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            assert moves and key == "quantize.embedding.weight" and not gradients[key].any()
        elif not key.endswith("to_k.bias"):  # to which softmax is blind
            assert_close(gradients[key], parameter.grad.numpy(), key, TOLERANCE[dtype])
    assert gradients.keys() == {key for key, _ in theirs.named_parameters()}
