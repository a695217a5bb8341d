"""What leads a pipeline, taken from the pictures of a data set: to train it, to show what it learnt, to measure it."""

import numpy as np

from minild.data.classes import class_names
from minild.errors import UserError
from minild.pipelines.conditions import reduced


def picture_size(pipe):
    """The height and width of the pictures that a pipeline was trained on, in pixels; 32 where nothing says so."""
    return pipe.record.get("size") or (pipe.default_size or (32,))[0]


def inputs(pipe, dataset, rows, pictures, rng):
    """What Pipeline.class_to_image or condition_to_image is given for these pictures, by the names of its arguments.

    rows: their numbers in the data set; pictures (N, H, W, 3) uint8. UserError for a data set that cannot say.
    """
    kind = pipe.kinds[-1]
    if kind == "class":
        return {"labels": class_names(dataset, rows)}
    if kind == "semantic map":
        require_maps(dataset)
        return {"images": np.stack([dataset.semantic_map(i) for i in rows])}
    if kind == "low resolution":
        return {"images": reduced(pictures, pipe.vae.downsampling)}
    if kind == "masked":
        return {"images": pictures, "masks": random_masks(rng, pictures.shape[:3])}
    return {"images": pictures}


def draw_from(pipe, asked, captions, size=None, **settings):
    """A picture for each of what `inputs` gave -> (N, H, W, 3) float32 in [0, 1].

    captions: N texts, for where text leads, too. size: (height, width), for where the inputs have none. settings:
    further arguments of the pipeline's methods.
    """
    if "labels" in asked:
        return pipe.class_to_image(**asked, size=size, **settings)
    words = {"prompts": captions} if "text" in pipe.kinds else {}
    return pipe.condition_to_image(**asked, **words, **settings)


def require_maps(dataset):
    """UserError for a data set without semantic maps."""
    if not hasattr(dataset, "semantic_map"):
        raise UserError(f"{dataset.name} has no semantic maps, as shapes have: take those, or another condition")


def random_masks(rng, shape):
    """A mask for each picture, (N, H, W) of `shape`, true where to draw: one to three boxes; of every tenth all."""
    N, H, W = shape
    masks = np.zeros(shape, bool)
    for mask in masks:
        for _ in range(rng.integers(1, 4)):
            height, width = (int(rng.integers(side // 4, 3 * side // 4 + 1)) for side in (H, W))
            top, left = rng.integers(H - height + 1), rng.integers(W - width + 1)
            mask[top : top + height, left : left + width] = True
    masks[rng.random(N) < 0.1] = True
    return masks
