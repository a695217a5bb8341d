"""The reference libraries, or a skip of every test module that imports this one; and how results are compared."""

import os
import warnings

import numpy as np
import pytest

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
        "CLIPTextModel": transformers.CLIPTextModel,
    }
    CLIPTokenizer = transformers.CLIPTokenizer
    StableDiffusionPipeline = diffusers.StableDiffusionPipeline

TOLERANCE = 1e-5  # of the largest absolute value


def channels_first(x):
    """A host array (N, H, W, C) as a tensor (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def channels_last(x):
    """A tensor (N, C, H, W) as a host array (N, H, W, C)."""
    return np.ascontiguousarray(x.detach().numpy().transpose(0, 2, 3, 1))


def assert_close(ours, theirs, what, scale=None):
    """Two host arrays are equal within TOLERANCE of `scale`, by default the largest absolute value of theirs."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, what
    scale = np.abs(theirs).max() if scale is None else scale
    error = np.abs(ours - theirs).max()
    assert scale > 0 and error <= TOLERANCE * scale, f"{what}: off by {error:.3g} where values reach {scale:.3g}"
