"""A tiny pipeline to play with, and files as the page gives them."""

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image


@pytest.fixture(scope="session")
def pipe():
    return tiny_pipeline.make(record=tiny_pipeline.RECORD)


@pytest.fixture
def picture():
    """8 x 8 pixels: what the tiny pipeline was trained on."""
    return np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.fixture
def file(tmp_path):
    """file(pixels) -> the name of a PNG of them."""

    def write(pixels):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        Image.fromarray(pixels).save(path)
        return str(path)

    return write


@pytest.fixture
def layer(file):
    """layer(mask) -> the name of a PNG as it is painted: red where the mask (H, W) is true, else clear."""

    def paint(mask):
        pixels = np.zeros((*mask.shape, 4), np.uint8)
        pixels[mask] = 200, 30, 30, 200
        return file(pixels)

    return paint
