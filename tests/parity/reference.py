"""The reference libraries, or a skip of every test module that imports this one; and a pass of its models."""

import os
import warnings

import numpy as np
import pytest
from models.passes import Pass, cast

from minild import models

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is looked up anywhere
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the libraries' own, on import; ours stay errors
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    diffusers = pytest.importorskip("diffusers")
    # The two load their classes when these are first named.
    REFERENCES = {
        "UNet2DConditionModel": diffusers.UNet2DConditionModel,
        "AutoencoderKL": diffusers.AutoencoderKL,
        "VQModel": diffusers.VQModel,
        "CLIPTextModel": transformers.CLIPTextModel,
    }
    CLIPTokenizer = transformers.CLIPTokenizer
    StableDiffusionPipeline = diffusers.StableDiffusionPipeline


def channels_first(x):
    """A host array (N, H, W, C) as a tensor (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def channels_last(x):
    """A tensor (N, C, H, W) as a host array (N, H, W, C)."""
    return np.ascontiguousarray(x.detach().numpy().transpose(0, 2, 3, 1))


def drawn(parameters, rng):
    """Draw arrays anew, so that no bias is zero, no gain one, and nothing starts at zero."""
    return [(array + 0.1 * rng.standard_normal(array.shape)).astype(np.float32) for array in parameters]


def make_reference(kind, config, rng):
    """The reference's model of a config, every parameter drawn."""
    torch.manual_seed(0)
    reference = REFERENCES[kind]
    model = reference(reference.config_class(**config)) if kind == "CLIPTextModel" else reference(**config)
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter, array in zip(parameters, drawn([p.numpy() for p in parameters], rng)):
            parameter.copy_(torch.from_numpy(array))
    return model.eval()


def pair(kind, config, writer, folder, rng):
    """(ours, theirs) of a config with the same weights: one writes a folder, the other opens it."""
    if writer == "minild":
        ours = getattr(models, kind).from_config(config)
        parameters = ours.parameters()
        for parameter, array in zip(parameters, drawn([p.data for p in parameters], rng)):
            parameter.data = array
        ours.save_pretrained(folder)
        return ours, REFERENCES[kind].from_pretrained(folder).eval()
    theirs = make_reference(kind, config, rng)
    theirs.save_pretrained(folder)
    return getattr(models, kind).from_pretrained(folder), theirs


def unet(model, x, t, context, dy, class_labels=None):
    x, t, context = channels_first(x).requires_grad_(), torch.tensor(t, requires_grad=True), torch.tensor(context)
    labels = None if class_labels is None else torch.tensor(class_labels, requires_grad=class_labels.dtype.kind == "f")
    given = {"encoder_hidden_states": context.requires_grad_()}
    if model.config.encoder_hid_dim_type == "image_proj":
        given = {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": context}}
    y = model(x, t, class_labels=labels, **given).sample
    y.backward(channels_first(dy))
    gradients = {"x": channels_last(x.grad), "t": t.grad.numpy(), "context": context.grad.numpy()}
    if labels is not None and labels.requires_grad:
        gradients["class_labels"] = labels.grad.numpy()
    return {"y": channels_last(y)}, gradients


def autoencoder_kl(model, x, noise, dy, dmean, dlogvar):
    x, noise = channels_first(x).requires_grad_(), channels_first(noise)
    posterior = model.encode(x).latent_dist
    y = model.decode(posterior.mean + posterior.std * noise).sample
    outputs = {"y": y, "mean": posterior.mean, "logvar": posterior.logvar, "decoded": model.decode(noise).sample}
    dys = [channels_first(d) for d in (dy, dmean, dlogvar)]
    torch.autograd.backward([y, posterior.mean, posterior.logvar], dys)
    return {name: channels_last(y) for name, y in outputs.items()}, {"x": channels_last(x.grad)}


def vq_model(model, x, z, dy, dloss):
    model.quantize.legacy = False  # β on the commitment, as published
    x = channels_first(x).requires_grad_()
    y, loss = model(x, return_dict=False)
    outputs = {"y": y, "z": model.encode(x).latents, "decoded": model.decode(channels_first(z)).sample}
    outputs = {name: channels_last(y) for name, y in outputs.items()} | {"loss": loss.detach().numpy()}
    torch.autograd.backward([y, loss], [channels_first(dy), torch.tensor(dloss)])
    return outputs, {"x": channels_last(x.grad)}


def clip_text(model, token_ids, dy):
    y = model(torch.tensor(token_ids)).last_hidden_state
    y.backward(torch.tensor(dy))
    return {"y": y.detach().numpy()}, {}


PASSES = {
    "UNet2DConditionModel": unet,
    "AutoencoderKL": autoencoder_kl,
    "VQModel": vq_model,
    "CLIPTextModel": clip_text,
}


class TimestepsInFloat64(torch.nn.Module):
    """What the U-Net's own do, who compute in float32 whatever the dtype of the model."""

    def __init__(self, own):
        super().__init__()
        self.dim, self.flip, self.shift = own.num_channels, own.flip_sin_to_cos, own.downscale_freq_shift

    def forward(self, t):
        half = self.dim // 2
        frequencies = torch.tensor([10000 ** (-i / (half - self.shift)) for i in range(half)], dtype=torch.float64)
        angles = t[:, None] * frequencies
        parts = [torch.cos(angles), torch.sin(angles)]
        return torch.cat(parts if self.flip else parts[::-1], dim=1)


def run(model, inputs, dtype):
    """The reference's Pass of a model in `dtype`."""
    kind = type(model).__name__
    model.to(getattr(torch, dtype))
    if kind == "UNet2DConditionModel" and dtype == "float64":
        model.time_proj = TimestepsInFloat64(model.time_proj)
    outputs, gradients = PASSES[kind](model, **cast(inputs, dtype))
    for name, parameter in model.named_parameters():  # transformers may put a prefix before ours
        gradients[name.removeprefix("text_model.")] = parameter.grad.numpy()
    return Pass(outputs, gradients)
