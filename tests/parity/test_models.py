"""The models against the reference's: the same folder, the same outputs, the same gradient of every parameter.

In float32 but for the deepest, where the rounding of either library comes near the tolerance.
"""

import numpy as np
import pytest
from models.tiny import AUTOENCODER, TEXT, UNET, UNET_2, autoencoder_inputs, unet_inputs
from safetensors.numpy import load_file, save_file

from minild import models
from parity.reference import REFERENCES, assert_close, channels_first, channels_last, torch

# With a channel a group, the norm would cancel the bias of the convolution before it: its gradient would be rounding.
AUTOENCODER = AUTOENCODER | {"norm_num_groups": 2}
THREE_LEVELS = AUTOENCODER | {
    "block_out_channels": [4, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "latent_channels": 3,
}
NO_ATTENTION = AUTOENCODER | {"mid_block_add_attention": False}
FOUR_LEVELS = UNET | {  # Stable Diffusion 1's own plan, narrow
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "in_channels": 4,
    "out_channels": 4,
}
TEXT = TEXT | {"bos_token_id": 9, "eos_token_id": 10, "pad_token_id": 10}


def drawn(parameters, rng):
    """Draw arrays anew, so that no bias is zero, no gain one, and nothing starts at zero."""
    return [(array + 0.1 * rng.standard_normal(array.shape)).astype(np.float32) for array in parameters]


def pair(kind, config, writer, folder, rng):
    """(ours, theirs) of a config with the same weights: one writes a folder, the other opens it."""
    if writer == "minild":
        ours = getattr(models, kind).from_config(config)
        parameters = ours.parameters()
        for parameter, array in zip(parameters, drawn([p.data for p in parameters], rng)):
            parameter.data = array
        ours.save_pretrained(folder)
        return ours, REFERENCES[kind].from_pretrained(folder).eval()
    torch.manual_seed(0)
    reference = REFERENCES[kind]
    if kind == "CLIPTextModel":
        theirs = reference(reference.config_class(**config))
    else:
        theirs = reference(**config)
    parameters = list(theirs.parameters())
    with torch.no_grad():
        for parameter, array in zip(parameters, drawn([p.numpy() for p in parameters], rng)):
            parameter.copy_(torch.from_numpy(array))
    theirs.save_pretrained(folder)
    return getattr(models, kind).from_pretrained(folder), theirs.eval()


def assert_same_gradients(ours, theirs):
    """Every parameter's gradient; the keys are the reference's, a prefix that it may write aside."""
    prefix = ours.key_prefix
    expected = {name.removeprefix(prefix): p.grad.numpy() for name, p in theirs.named_parameters()}
    gradients = ours.gradient_dict()
    assert gradients.keys() == expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in gradients.items():
        # A bias of the keys shifts each row of scores as a whole, to which softmax is blind: only rounding is left.
        blind = name.endswith(("k_proj.bias", "to_k.bias"))
        assert_close(gradient, expected[name], name, scale=largest if blind else None)


WRITERS = pytest.mark.parametrize("writer", ["minild", "reference"])


@WRITERS
@pytest.mark.parametrize(
    ("config", "dtype"),
    [(UNET, "float32"), (UNET_2, "float32"), (FOUR_LEVELS, "float64")],
    ids=["unet", "unet 2", "four levels"],
)
def test_unet(tmp_path, rng, config, dtype, writer):
    ours, theirs = pair("UNet2DConditionModel", config, writer, tmp_path, rng)
    ours.astype(dtype)
    theirs.to(getattr(torch, dtype))
    inputs = unet_inputs(rng, config["in_channels"]) | {"t": np.array([3.75, 612.25])}  # theirs become float32: no loss
    if config is FOUR_LEVELS:
        inputs["x"] = rng.standard_normal((2, 8, 16, 4))
    x, t, context = (inputs[name].astype(dtype) for name in ("x", "t", "context"))
    x_, context_ = channels_first(x).requires_grad_(), torch.from_numpy(context).requires_grad_()

    y, cache = ours.forward(x, t, context)
    y_ = theirs(x_, torch.from_numpy(t), encoder_hidden_states=context_).sample
    assert_close(y, channels_last(y_), "y")

    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, _, dcontext = ours.backward(dy, cache)
    y_.backward(channels_first(dy))
    assert_close(dx, channels_last(x_.grad), "dx")
    assert_close(dcontext, context_.grad.numpy(), "dcontext")
    assert_same_gradients(ours, theirs)


@WRITERS
@pytest.mark.parametrize(
    ("config", "dtype"),
    [(AUTOENCODER, "float32"), (NO_ATTENTION, "float32"), (THREE_LEVELS, "float64")],
    ids=["two levels", "no attention", "three levels"],
)
def test_autoencoder(tmp_path, rng, config, dtype, writer):
    ours, theirs = pair("AutoencoderKL", config, writer, tmp_path, rng)
    ours.astype(dtype)
    theirs.to(getattr(torch, dtype))
    inputs = autoencoder_inputs(rng)
    if config is THREE_LEVELS:
        inputs = {"x": rng.standard_normal((2, 12, 8, 3)), "noise": rng.standard_normal((2, 3, 2, 3))}
    x, noise = (inputs[name].astype(dtype) for name in ("x", "noise"))
    x_ = channels_first(x).requires_grad_()

    (y, posterior), cache = ours.forward(x, noise)
    posterior_ = theirs.encode(x_).latent_dist
    y_ = theirs.decode(posterior_.mean + posterior_.std * channels_first(noise)).sample
    assert_close(posterior.mean, channels_last(posterior_.mean), "mean")
    assert_close(posterior.logvar, channels_last(posterior_.logvar), "logvar")
    assert_close(y, channels_last(y_), "y")
    assert_close(ours.decode(noise), channels_last(theirs.decode(channels_first(noise)).sample), "decode")

    dy, dmean, dlogvar = (rng.standard_normal(like.shape).astype(dtype) for like in (y, *posterior))
    dx = ours.backward(dy, (dmean, dlogvar), cache)
    torch.autograd.backward([y_, posterior_.mean, posterior_.logvar], [channels_first(d) for d in (dy, dmean, dlogvar)])
    assert_close(dx, channels_last(x_.grad), "dx")
    assert_same_gradients(ours, theirs)


def change_prefix(folder, prefix):
    """Rewrite a text model's keys with that prefix before each."""
    state = load_file(folder / "model.safetensors")
    state = {prefix + name.removeprefix("text_model."): array for name, array in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@WRITERS
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("prefix", ["", "text_model."], ids=["no prefix", "text_model."])
def test_text_encoder(tmp_path, rng, activation, prefix, writer):
    ours, theirs = pair("CLIPTextModel", TEXT | {"hidden_act": activation}, writer, tmp_path, rng)
    change_prefix(tmp_path, prefix)
    if writer == "minild":
        theirs = REFERENCES["CLIPTextModel"].from_pretrained(tmp_path).eval()
    else:
        ours = models.CLIPTextModel.from_pretrained(tmp_path)
    token_ids = rng.integers(0, 9, (2, 6))
    token_ids[:, 0], token_ids[0, 3:], token_ids[1, 5] = 9, 10, 10

    y, cache = ours.forward(token_ids)
    y_ = theirs(torch.from_numpy(token_ids)).last_hidden_state
    assert_close(y, y_.detach().numpy(), "y")

    dy = rng.standard_normal(y.shape).astype(np.float32)
    ours.backward(dy, cache)
    y_.backward(torch.from_numpy(dy))
    assert_same_gradients(ours, theirs)
