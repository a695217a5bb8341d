"""A forward and a backward of each model as named arrays, to be compared with the reference's, or a record of them.

tests/parity/reference.py has the reference's passes, with the same names; tests/golden holds records of some.
"""

from typing import NamedTuple

import numpy as np

from minild.engine import using

OUTPUT_TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of the largest absolute value
GRADIENT_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


class Pass(NamedTuple):
    """Outputs by name; gradients of the inputs by name and of the parameters by key, in the interchange layout."""

    outputs: dict
    gradients: dict


def unet(model, x, t, context, dy, class_labels=None):
    y, cache = model.forward(x, t, context, class_labels)
    return {"y": y}, dict(zip(("x", "t", "context", "class_labels"), model.backward(dy, cache)))


def autoencoder_kl(model, x, noise, dy, dmean, dlogvar):
    (y, posterior), cache = model.forward(x, noise)
    dx = model.backward((dy, (dmean, dlogvar)), cache)
    return {"y": y, "mean": posterior.mean, "logvar": posterior.logvar, "decoded": model.decode(noise)}, {"x": dx}


def vq_model(model, x, z, dy, dloss):
    (y, loss), cache = model.forward(x)
    dx = model.backward((dy, dloss), cache)
    return {"y": y, "loss": np.asarray(loss), "z": model.encode(x), "decoded": model.decode(z)}, {"x": dx}


def clip_text(model, token_ids, dy):
    y, cache = model.forward(token_ids)
    model.backward(dy, cache)
    return {"y": y}, {}


PASSES = {
    "UNet2DConditionModel": unet,
    "AutoencoderKL": autoencoder_kl,
    "VQModel": vq_model,
    "CLIPTextModel": clip_text,
}


def cast(inputs, dtype):
    """The inputs, floats in `dtype`."""
    return {name: x.astype(dtype) if x.dtype.kind == "f" else x for name, x in inputs.items()}


def run(model, inputs, dtype):
    """Our Pass of a model in `dtype`, on the textbook's ops: the convolution that is faster rounds more."""
    model.astype(dtype)
    with using("textbook"):
        outputs, gradients = PASSES[type(model).__name__](model, **cast(inputs, dtype))
    return Pass(outputs, gradients | model.gradient_dict())


def assert_close(ours, theirs, what, tolerance, scale=None):
    """Two host arrays are equal within `tolerance` of `scale`, by default the largest absolute value of theirs."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, what
    scale = np.abs(theirs).max() if scale is None else scale
    error = np.abs(ours - theirs).max()
    assert scale > 0 and error <= tolerance * scale, f"{what}: off by {error:.3g} where values reach {scale:.3g}"


BLIND = ("k_proj.bias", "to_k.bias")  # shifts each row of scores as a whole, to which softmax is blind
ONE_TOKEN = ("attn1.to_q.weight", "attn1.to_k.weight")  # of a single score the softmax is 1, whatever the score


def assert_same(ours, theirs, dtype, blind=BLIND, slack=1):
    """Two passes in `dtype` have the same outputs and gradients, and no others.

    slack: how often the tolerance of the gradients is granted.
    blind: how the names of parameters end to which the outputs are blind: only rounding is left of their gradients.
    """
    assert ours.outputs.keys() == theirs.outputs.keys() and ours.gradients.keys() == theirs.gradients.keys()
    for name, y in ours.outputs.items():
        assert_close(y, theirs.outputs[name], name, OUTPUT_TOLERANCE[dtype])
    largest = max(np.abs(gradient).max() for gradient in theirs.gradients.values())
    for name, gradient in ours.gradients.items():
        scale = largest if name.endswith(blind) else None
        assert_close(gradient, theirs.gradients[name], f"gradient of {name}", slack * GRADIENT_TOLERANCE[dtype], scale)
