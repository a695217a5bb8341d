"""The models on every device present: the same numbers as NumPy's, and the host never waits for the device."""

import numpy as np
import pytest
from device_double import count_synchronisations

from minild.backend import to_device, to_host
from minild.diffusion.loss import epsilon_loss, epsilon_loss_backward
from minild.diffusion.schedule import NoiseSchedule
from minild.models import AutoencoderKL, CLIPTextModel, CLIPVisionModel, UNet2DConditionModel, VQModel
from models.contrastive import ContrastiveCLIP, clip_inputs
from models.tiny import AUTOENCODER, CLIP, TEXT, THREE_LEVELS, UNET, UNET_2, VQ, autoencoder_inputs, unet_inputs


def trained(model):
    """No layer left at zero."""
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        parameter.data = np.asarray(parameter.data + 0.1 * rng.standard_normal(parameter.data.shape, dtype="f"))
    return model


def flat(y):
    """The arrays of an output, which may be (reconstruction, posterior) or (reconstruction, loss)."""
    return [array for part in y for array in flat(part)] if isinstance(y, tuple) else [y]


def like(y, arrays):
    """`arrays` in the structure of an output y."""
    return tuple(like(part, arrays) for part in y) if isinstance(y, tuple) else next(arrays)


def run(model, inputs, device):
    """y, the gradients of the inputs and of the parameters, on the host; and why the host waited."""
    model.to(device)
    inputs = [to_device(x, device) for x in inputs]
    with count_synchronisations() as waits:
        y, cache = model.forward(*inputs)
        outputs = flat(y)
        dys = [1 + 0 * part for part in outputs]
        for i, dy in enumerate(dys):
            if dy.ndim:
                dy[0] *= -0.3 * i - 0.7
        gradients = model.backward(like(y, iter(dys)), cache)
        inferred = flat(model(*inputs))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    arrays = [*outputs, *inferred, *(g for g in gradients if g is not None), *(p.grad for p in model.parameters())]
    return [np.asarray(a) if isinstance(a, np.generic) else to_host(a) for a in arrays], waits.reasons


def single(inputs):
    """The inputs as a user gives them: float32, and timesteps that are integers."""
    inputs = {name: x.astype("f") if x.dtype.kind == "f" else x for name, x in inputs.items()}
    return [x.astype(int) if name == "t" else x for name, x in inputs.items()]


CASES = {
    "unet": (UNet2DConditionModel, UNET, lambda rng: single(unet_inputs(rng, 3))),
    "unet 2": (UNet2DConditionModel, UNET_2, lambda rng: single(unet_inputs(rng, 5))),
    "unet of three levels": (UNet2DConditionModel, THREE_LEVELS, lambda rng: single(unet_inputs(rng, 3, (7, 10)))),
    "autoencoder": (AutoencoderKL, AUTOENCODER, lambda rng: single(autoencoder_inputs(rng))),
    "vq": (VQModel, VQ, lambda rng: single(autoencoder_inputs(rng))[:1]),
    "image": (CLIPVisionModel, CLIP["vision_config"], lambda rng: single(clip_inputs(rng))[:1]),
    "clip": (ContrastiveCLIP, CLIP, lambda rng: single(clip_inputs(rng))),
    "text": (CLIPTextModel, TEXT, lambda rng: [rng.integers(0, 11, (2, 5))]),
    "text gelu": (CLIPTextModel, TEXT | {"hidden_act": "gelu"}, lambda rng: [rng.integers(0, 11, (2, 5))]),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_are_numpys(device, rng, case):
    model_class, config, make_inputs = CASES[case]
    inputs = make_inputs(rng)
    expected, _ = run(trained(model_class.from_config(config)), inputs, "cpu")
    got, waits = run(trained(model_class.from_config(config)), inputs, device)
    assert waits == []
    for a, b in zip(expected, got, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, atol=1e-4 * max(1, np.abs(a).max()))


def test_a_training_step_never_waits(device, rng):
    """Everything up to the gradients; the loss stays on the device until it is asked for."""
    model = trained(UNet2DConditionModel.from_config(UNET))
    z, noise = rng.standard_normal((2, 2, 4, 6, 3), dtype="f")
    t, context = np.array([37, 612]), rng.standard_normal((2, 5, 6), dtype="f")
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[t].reshape(2, 1, 1, 1)
    z_t = (np.sqrt(alpha_bar) * z + np.sqrt(1 - alpha_bar) * noise).astype("f")
    expected = np.mean((noise - model(z_t, t, context)) ** 2)

    levels = [to_device(level, device) for level in NoiseSchedule().noise_levels(t)]
    z, noise, t, context = (to_device(x, device) for x in (z, noise, t, context))
    model.to(device)
    with count_synchronisations() as waits:
        loss, cache = epsilon_loss(model, z, noise, t, levels, context)
        epsilon_loss_backward(1.0, cache)
    assert waits.reasons == []
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_posterior_draws_the_same_picture_on_either_device(device, rng):
    x = rng.standard_normal((2, 6, 4, 3), dtype="f")
    model = trained(AutoencoderKL.from_config(AUTOENCODER))
    posterior = model.encode(x)
    expected = posterior.sample([np.random.default_rng(i) for i in (3, 4)])
    alone = model.encode(x[1:]).sample([np.random.default_rng(4)])
    np.testing.assert_allclose(alone[0], expected[1], atol=1e-5)
    assert np.abs(expected - posterior.mean).max() > 0.1
    together = posterior.sample(np.random.default_rng(3))
    np.testing.assert_array_equal(together[0], expected[0])
    assert np.abs(together[1] - expected[1]).max() > 0.1
    posterior = model.to(device).encode(to_device(x, device))
    with count_synchronisations() as waits:
        z = posterior.sample([np.random.default_rng(i) for i in (3, 4)])
    assert waits.reasons == []
    np.testing.assert_allclose(to_host(z), expected, atol=1e-5)


def test_the_timestep_is_embedded_exactly_in_float16(device, rng):
    """In float16 an angle near 981 would be off by a quarter radian: the embedding is computed in float32."""
    x, t, context = single(unet_inputs(rng, 3) | {"t": np.array([406, 981])})
    model = trained(UNet2DConditionModel.from_config(UNET))
    first = model.time_embedding.linear_1
    exact = model(x, t, context)
    model.astype("float16").to(device)
    seen = []
    forward = first.forward
    first.forward = lambda embedded: (seen.append(to_host(embedded)), forward(embedded))[1]
    y = model(*(to_device(a, device) for a in (x.astype(model.dtype), t, context.astype(model.dtype))))
    i = np.arange(4)
    angles = t[:, None] * 10000.0 ** (-i / 4)
    np.testing.assert_allclose(seen[0], np.concatenate([np.cos(angles), np.sin(angles)], axis=1), atol=1e-3)
    assert seen[0].dtype == model.dtype and y.dtype == model.dtype
    np.testing.assert_allclose(to_host(y).astype("f"), exact, atol=0.03 * np.abs(exact).max())
