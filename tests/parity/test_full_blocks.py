"""Every block of Stable Diffusion 1 at its own widths, forward and backward, against the reference's autograd.

Both sides' blocks are taken out of their models at the published configs, so that widths, heads, groups and epsilons
are those of the architecture; only the maps are small, 4 x 6. In float32, within 1e-5 of the largest value of every
output and of every gradient (models/passes.py), but for the timestep's embedding.
"""

from typing import NamedTuple

import numpy as np
import pytest
from models.passes import Pass, assert_same

from minild import pretrained
from minild.engine import using
from minild.nn.embeddings import SinusoidalEmbedding, TimestepEmbedding
from minild.nn.layers import GroupNorm, LayerNorm
from minild.ops.embedding import timestep_embedding
from minild.pipelines.single_file import CONFIGS, MODELS
from parity.reference import REFERENCES, TimestepsInFloat64, channels_first, channels_last, torch

pytestmark = pytest.mark.slow  # a minute, and up to 5 GB

N, H, W = 2, 4, 6
TOKENS = 77


class Block(NamedTuple):
    part: str
    name: str
    width: int  # of the input
    output: tuple  # (height, width, channels)
    skips: tuple = ()  # channels of the skips that it takes, the last of them first

    def __str__(self):
        return f"{self.part} {self.name}"


UNET_DOWN = [
    Block("unet", "down_blocks.0", 320, (2, 3, 320)),
    Block("unet", "down_blocks.1", 320, (2, 3, 640)),
    Block("unet", "down_blocks.2", 640, (2, 3, 1280)),
    Block("unet", "down_blocks.3", 1280, (4, 6, 1280)),
]
UNET_MID = [Block("unet", "mid_block", 1280, (4, 6, 1280))]
UNET_UP = [
    Block("unet", "up_blocks.0", 1280, (8, 12, 1280), (1280, 1280, 1280)),
    Block("unet", "up_blocks.1", 1280, (8, 12, 1280), (640, 1280, 1280)),
    Block("unet", "up_blocks.2", 1280, (8, 12, 640), (320, 640, 640)),
    Block("unet", "up_blocks.3", 640, (4, 6, 320), (320, 320, 320)),
]
CHAINS = [
    Block("unet", "conv_in", 4, (4, 6, 320)),
    Block("unet", "conv_norm_out", 320, (4, 6, 320)),
    Block("unet", "conv_out", 320, (4, 6, 4)),
    Block("vae", "encoder.conv_in", 3, (4, 6, 128)),
    Block("vae", "encoder.down_blocks.0", 128, (2, 3, 128)),
    Block("vae", "encoder.down_blocks.1", 128, (2, 3, 256)),
    Block("vae", "encoder.down_blocks.2", 256, (2, 3, 512)),
    Block("vae", "encoder.down_blocks.3", 512, (4, 6, 512)),
    Block("vae", "encoder.mid_block", 512, (4, 6, 512)),
    Block("vae", "encoder.conv_out", 512, (4, 6, 8)),
    Block("vae", "quant_conv", 8, (4, 6, 8)),
    Block("vae", "post_quant_conv", 4, (4, 6, 4)),
    Block("vae", "decoder.conv_in", 4, (4, 6, 512)),
    Block("vae", "decoder.mid_block", 512, (4, 6, 512)),
    Block("vae", "decoder.up_blocks.0", 512, (8, 12, 512)),
    Block("vae", "decoder.up_blocks.1", 512, (8, 12, 512)),
    Block("vae", "decoder.up_blocks.2", 512, (8, 12, 256)),
    Block("vae", "decoder.up_blocks.3", 256, (4, 6, 128)),
    Block("vae", "decoder.conv_out", 128, (4, 6, 3)),
]


@pytest.fixture(scope="module")
def whole_models():
    """{part: (ours, theirs)} at the published configs: without numbers, and so almost without memory."""
    models = {}
    for part, kind in MODELS.items():
        ours = kind(kind.complete_config(CONFIGS[part]))
        reference = REFERENCES[kind.__name__]
        with torch.device("meta"):
            config = ours.config
            theirs = reference(reference.config_class(**config)) if part == "text_encoder" else reference(**config)
        # Some releases of the text model have one level more.
        theirs = {name.removeprefix("text_model."): module for name, module in theirs.eval().named_modules()}
        models[part] = ours, theirs
    return models


def draw(module):
    """Give a block of a model without numbers its own: weights of deviation 1/√fan_in, gains near 1, biases near 0."""
    module = module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(float(name.endswith("weight")), 0.1, generator=generator)
    return module


@pytest.fixture
def blocks(whole_models):
    """blocks(part, name): (ours, theirs) of the block that both models have under that name, with the same weights."""

    def take(part, name):
        ours, reference = whole_models[part]
        theirs = draw(reference[name])
        for step in name.split("."):
            ours = ours[int(step)] if step.isdigit() else getattr(ours, step)
        pretrained.load_state_dict(ours, {key: p.detach().numpy() for key, p in theirs.named_parameters()})
        return ours, theirs

    return take


def normal(rng, *shape):
    return rng.standard_normal((N, *shape), np.float32)


def tensors(arrays):
    """Named host arrays as tensors, the maps channels first."""
    return {name: channels_first(x) if x.ndim == 4 else torch.from_numpy(x) for name, x in arrays.items()}


def arrays(tensors):
    """Named tensors as host arrays, the maps channels last."""
    return {name: channels_last(x) if x.ndim == 4 else x.detach().numpy() for name, x in tensors.items()}


def backward(module, inputs, outputs, dys):
    """Their Pass, once the outputs are there: named tensors, and the gradients of the outputs as named arrays."""
    names = list(outputs)
    torch.autograd.backward([outputs[name] for name in names], [tensors(dys)[name] for name in names])
    gradients = arrays({name: x.grad for name, x in inputs.items()})
    gradients |= {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    module.to_empty(device="meta").zero_grad()  # a gigabyte of the widest block's
    return Pass(arrays(outputs), gradients)


def gradients_of(module):
    """The gradients of our parameters by key. The module is left without numbers."""
    gradients = {}
    for name, parameter in module.named_parameters():
        gradients[name] = pretrained.to_interchange(parameter.grad, parameter.layout)
        parameter.data, parameter.grad = np.empty(parameter.data.shape, np.float32), None
    return gradients


def numbered(name, items):
    return {f"{name} {i}": item for i, item in enumerate(items)}


def leaves(arrays):
    return {name: x.requires_grad_() for name, x in tensors(arrays).items()}


def norms(module, name=""):
    """{name: (ε, groups or None)} of the norms in one of our modules."""
    found = {name: (module.eps, getattr(module, "groups", None))} if isinstance(module, (GroupNorm, LayerNorm)) else {}
    for child, inner in module.children():
        found |= norms(inner, f"{name}.{child}".removeprefix("."))
    return found


@pytest.mark.parametrize("part", MODELS)
def test_norms_have_the_references_epsilon(whole_models, part):
    """What the blocks' values do not show: a variance of one swallows the difference between 1e-5 and 1e-6."""
    ours, theirs = whole_models[part]
    kinds = torch.nn.GroupNorm, torch.nn.LayerNorm
    expected = {
        name: (norm.eps, getattr(norm, "num_groups", None)) for name, norm in theirs.items() if isinstance(norm, kinds)
    }
    assert norms(ours) == expected and len(expected) > 20


@pytest.mark.parametrize("block", UNET_DOWN, ids=str)
def test_down_block(blocks, rng, block):
    ours, theirs = blocks(block.part, block.name)
    inputs = {"x": normal(rng, H, W, block.width), "temb": normal(rng, 1280), "context": normal(rng, TOKENS, 768)}
    if not ours.has_attention:
        del inputs["context"]
    given = leaves(inputs)
    y, skips = theirs(*given.values())
    dskips = [normal(rng, *skip.shape[2:], skip.shape[1]) for skip in skips]
    dy = normal(rng, *block.output)
    expected = backward(theirs, given, {"y": y, **numbered("skip", skips)}, {"y": dy, **numbered("skip", dskips)})

    with using("textbook"):
        (y, skips), cache = ours.forward(inputs["x"], inputs["temb"], inputs.get("context"))
        gradients = ours.backward((dy, dskips), cache)
    gradients = dict(zip(inputs, gradients)) | gradients_of(ours)
    assert_same(Pass({"y": y, **numbered("skip", skips)}, gradients), expected, "float32")


@pytest.mark.parametrize("block", UNET_MID, ids=str)
def test_middle_block(blocks, rng, block):
    ours, theirs = blocks(block.part, block.name)
    inputs = {"x": normal(rng, H, W, block.width), "temb": normal(rng, 1280), "context": normal(rng, TOKENS, 768)}
    given = leaves(inputs)
    y, dy = theirs(given["x"], given["temb"], encoder_hidden_states=given["context"]), normal(rng, *block.output)
    expected = backward(theirs, given, {"y": y}, {"y": dy})

    with using("textbook"):
        y, cache = ours.forward(**inputs)
        gradients = ours.backward(dy, cache)
    gradients = dict(zip(inputs, gradients)) | gradients_of(ours)
    assert_same(Pass({"y": y}, gradients), expected, "float32")


@pytest.mark.parametrize("block", UNET_UP, ids=str)
def test_up_block(blocks, rng, block):
    ours, theirs = blocks(block.part, block.name)
    x, temb, context = normal(rng, H, W, block.width), normal(rng, 1280), normal(rng, TOKENS, 768)
    skips = [normal(rng, H, W, width) for width in block.skips]
    given = leaves({"x": x, "temb": temb, **numbered("skip", skips)})
    states = tuple(given[name] for name in numbered("skip", skips))
    if ours.has_attention:
        given |= leaves({"context": context})
        y = theirs(given["x"], states, given["temb"], encoder_hidden_states=given["context"])
    else:
        y = theirs(given["x"], states, given["temb"])
    dy = normal(rng, *block.output)
    expected = backward(theirs, given, {"y": y}, {"y": dy})

    with using("textbook"):
        y, cache = ours.forward(x, skips, temb, context)
        dx, dskips, dtemb, dcontext = ours.backward(dy, cache)
    gradients = {"x": dx, "temb": dtemb, **numbered("skip", dskips)}
    gradients |= {"context": dcontext} if ours.has_attention else {}
    assert_same(Pass({"y": y}, gradients | gradients_of(ours)), expected, "float32")


@pytest.mark.parametrize("block", CHAINS, ids=str)
def test_block_of_one_input(blocks, rng, block):
    ours, theirs = blocks(block.part, block.name)
    inputs = {"x": normal(rng, H, W, block.width)}
    given = leaves(inputs)
    y, dy = theirs(given["x"]), normal(rng, *block.output)
    if getattr(ours, "silu", False):  # of ours it is a part
        y = torch.nn.functional.silu(y)
    expected = backward(theirs, given, {"y": y}, {"y": dy})

    with using("textbook"):
        y, cache = ours.forward(inputs["x"])
        gradients = {"x": ours.backward(dy, cache)} | gradients_of(ours)
    assert_same(Pass({"y": y}, gradients), expected, "float32")


def test_layer_of_the_text_encoder(blocks, rng):
    ours, theirs = blocks("text_encoder", "encoder.layers.0")
    inputs, dy = {"x": normal(rng, TOKENS, 768)}, normal(rng, TOKENS, 768)
    given = leaves(inputs)
    expected = backward(theirs, given, {"y": theirs(given["x"], attention_mask=None, is_causal=True)}, {"y": dy})

    y, cache = ours.forward(inputs["x"])
    gradients = {"x": ours.backward(dy, cache)} | gradients_of(ours)
    assert_same(Pass({"y": y}, gradients), expected, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embedding_of_the_timestep(whole_models, blocks, rng, dtype):
    """In float32 from its sines on, whose angles, up to 1000, a last digit's difference moves by more than 1e-5."""
    ours, theirs = blocks("unet", "time_embedding")
    theirs.to(getattr(torch, dtype))
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    t, dy = np.array([3.75, 981.25]), normal(rng, 1280).astype(dtype)
    sines, _ = timestep_embedding(t, 320)
    inputs = {"t": t} if dtype == "float64" else {"sines": sines.astype(dtype)}
    given = leaves(inputs)
    time_proj = TimestepsInFloat64(whole_models["unet"][1]["time_proj"])
    first = time_proj(given["t"]) if dtype == "float64" else given["sines"]
    expected = backward(theirs, given, {"y": theirs(first)}, {"y": dy})

    [(name, x)] = inputs.items()
    layers = SinusoidalEmbedding if dtype == "float64" else TimestepEmbedding  # which knows nothing of the sines
    y, cache = layers.forward(ours, x)
    gradients = {name: layers.backward(ours, dy, cache)}
    assert_same(Pass({"y": y}, gradients | gradients_of(ours)), expected, dtype)
