"""What minild's own perceptual network says of pictures: how different two look, and the features of many."""

import numpy as np

from minild.backend import to_host
from minild.data.location import data_path
from minild.evaluation.pictures import batches, pair, to_unit
from minild.models import LPIPS


def load_perceptual(device="cpu"):
    """The models.LPIPS that comes with minild: a small VGG trained on emoji and shapes (`minild train perceptual`)."""
    return LPIPS.from_pretrained(data_path("pretrained", "perceptual"), device=device)


def lpips(x, y, model):
    """The perceptual distance of each picture, by a models.LPIPS -> (N,) float64. x, y as for psnr."""
    x, y = pair(x, y)
    pairs = zip(batches(2 * x - 1, model.device), batches(2 * y - 1, model.device))
    return np.concatenate([to_host(model(*pair)) for pair in pairs]).astype(float)


def features(pictures, model):
    """The means over the pixels of each map of the coarsest level of a models.LPIPS -> (N, C) float64."""
    signed = batches(2 * to_unit("pictures", pictures) - 1, model.device)
    return np.concatenate([to_host(model.features(x)[-1].mean(axis=(1, 2))) for x in signed]).astype(float)
