"""What leads a pipeline, from what a user gives to the host arrays of a models.Condition (paper, figure 3).

    text            prompts, by cross-attention to the tokens that the text encoder makes of them
    image           a picture, as minild's perceptual network describes it, by cross-attention to tokens made of that
    class           a label, added to the embedding of the timestep
    semantic map    which of K things each pixel shows, put beside the latents as the shares of each at each position
    low resolution  a picture of f times fewer pixels a side, put beside the latents, with noise (low_resolution.py)
    masked          a picture and the mask of what to draw anew: mask and latents of the rest, beside the latents, in
                    the order of Stable Diffusion's inpainting model

Text goes with one of the last three, as "text+masked". Training and drawing both make their conditions here.
"""

import functools

import numpy as np

from minild.backend import to_device, to_host
from minild.data.location import data_path
from minild.data.pictures import to_signed
from minild.engine.cores import side_by_side
from minild.errors import UserError
from minild.models import LPIPS, Condition
from minild.pipelines import planning
from minild.pipelines.low_resolution import MAX_NOISE_LEVEL

FIELDS = {  # the part of models.Condition that each kind is
    "text": "context",
    "image": "context",
    "class": "class_labels",
    "semantic map": "channels",
    "low resolution": "channels",
    "masked": "channels",
}
EMBEDDED = "image_proj"  # how the U-Net makes tokens of a picture's embedding (nn.embeddings)
SMALLEST = 16  # pixels: the perceptual network halves a picture three times


def condition_kinds(condition):
    """A condition in words, "class" or "text+masked" -> a tuple of keys of FIELDS. UserError for any other."""
    kinds = tuple(part.replace("-", " ").replace("_", " ").strip() for part in str(condition).split("+"))
    unknown = [kind for kind in kinds if kind not in FIELDS]
    if unknown:
        raise UserError(f"unknown condition {unknown[0]!r}: use one of {', '.join(FIELDS)}, or text+masked, say")
    if len(kinds) > 1 and (len(kinds) > 2 or kinds[0] != "text" or FIELDS[kinds[1]] != "channels"):
        raise UserError(f"condition {condition!r} is not supported: text goes with one of {', '.join(_of_channels())}")
    return kinds


def _of_channels():
    return [kind for kind, field in FIELDS.items() if field == "channels"]


def channel_count(kinds, latent_channels, classes):
    """How many channels these kinds put beside the latents'. classes: the number of a semantic map's."""
    counts = {"semantic map": classes, "low resolution": 3, "masked": 1 + latent_channels}
    return sum(counts.get(kind, 0) for kind in kinds)


def unet_fields(kinds, latent_channels, classes):
    """The fields of a U-Net's config that these kinds ask for; `classes` is the number of labels, or of a map's."""
    fields = {"in_channels": latent_channels + channel_count(kinds, latent_channels, classes)}
    if "class" in kinds:
        fields["num_class_embeds"] = classes + 1  # the last is no class
    if "low resolution" in kinds:
        fields["num_class_embeds"] = MAX_NOISE_LEVEL + 1
    if "image" in kinds:
        fields |= {"encoder_hid_dim": perceptual_network().config["widths"][-1], "encoder_hid_dim_type": EMBEDDED}
    return fields


def given(pipe, labels=None, images=None, masks=None):
    """-> (Condition of host arrays, without the text's, one row an item; (H, W) of the pictures, None for any).

    The arguments are those of Pipeline.class_to_image and condition_to_image. UserError for what does not fit.
    """
    kind = pipe.kinds[-1]
    if labels is not None:
        return Condition(class_labels=usable_labels(pipe.classes, labels)), None
    if masks is not None and kind != "masked":
        raise UserError(f"masks are for a model of masked pictures, this one is of: {'+'.join(pipe.kinds)}")
    if kind == "image":
        return Condition(context=picture_embeddings(usable_pictures(images, SMALLEST), pipe.perceptual)), None
    f = pipe.vae.downsampling
    if kind == "semantic map":
        maps = usable_maps(images, pipe.classes, f)
        return Condition(channels=semantic_channels(maps, len(pipe.classes), f)), maps.shape[1:3]
    if kind == "low resolution":
        pictures = usable_pictures(images)
        return Condition(channels=2 * pictures - 1), tuple(f * side for side in pictures.shape[1:3])
    pictures = usable_pictures(images, factor=f)
    return Condition(channels=masked_channels(pipe.vae, pictures, usable_masks(masks, pictures))), pictures.shape[1:3]


def nothing_like(pipe, condition):
    """What guidance leads away from: no class, zeros for a description and, where nothing else leads, for channels."""
    context, labels, channels, control = condition
    return Condition(
        None if context is None else np.zeros_like(context),
        None if labels is None else np.full_like(labels, len(pipe.classes)),
        np.zeros_like(channels) if pipe.kinds[0] != "text" and channels is not None else channels,
        control,  # a ControlNet looks at the same picture on either side
    )


def semantic_channels(maps, classes, f):
    """The share of each class in every f x f pixels: maps (N, H, W) whole numbers -> (N, H/f, W/f, classes) float32."""
    N, H, W = maps.shape
    shares = np.empty((N, H // f, W // f, classes), np.float32)
    for i in range(classes):
        shares[..., i] = (maps == i).reshape(N, H // f, f, W // f, f).mean(axis=(2, 4))
    return shares


def masked_channels(vae, pictures, masks):
    """[mask, latents of the picture with grey where it is masked] -> (N, h, w, 1 + c) float32.

    pictures (N, H, W, 3) in [0, 1]; masks (N, H, W), true where to draw. As Stable Diffusion's inpainting model has
    it: the mask is that of the top left pixel of each f x f, and a masked pixel is 0 of [-1, 1].
    """
    f, seen = vae.downsampling, np.where(masks[..., None], 0, 2 * pictures - 1).astype(np.float32)
    return np.concatenate([masks[:, ::f, ::f, None].astype(np.float32), encode(vae, seen)], axis=-1)


POSTERIORS = ("sample", "mode")  # what of an autoencoder's posterior a U-Net learnt; pipelines encode to its mode


def encode(vae, x):
    """The mean latents, of unit variance, of pictures (N, H, W, 3) float32 in [-1, 1] -> (N, h, w, c) on the host.

    Those of each are the same alone and among others (pipelines.planning).
    """
    h, w = (side // vae.downsampling for side in x.shape[1:3])
    at_once = planning.pictures_at_once(vae.device, h, w)

    def encode_some(start):
        z = vae.mean_latent(to_device(x[start : start + at_once].astype(vae.dtype), vae.device))
        return to_host(z).astype(np.float32)

    with planning.workers(vae.device, h, w) as workers:
        means = np.concatenate(list(workers(encode_some, range(0, len(x), at_once))))
    return means * vae.config["scaling_factor"]


@functools.cache
def perceptual_network():
    """The models.LPIPS that comes with minild, on the host."""
    return LPIPS.from_pretrained(data_path("pretrained", "perceptual"))


def picture_embeddings(pictures, network=None):
    """What pictures (N, H, W, 3) in [0, 1] show -> (N, C) float32, of mean square 1.

    The means over the pixels of the coarsest features of a models.LPIPS, None for minild's perceptual network. They
    are the same alone and among others.
    """
    network = network or perceptual_network()

    def describe(picture):
        return network.features((2 * picture[None] - 1).astype(np.float32))[-1].mean(axis=(1, 2))

    with side_by_side() as map_on_cores:
        y = np.concatenate(list(map_on_cores(describe, pictures)))
    return y / np.sqrt((y**2).mean(axis=1, keepdims=True) + 1e-12)


def usable_labels(classes, labels):
    """Labels, names or numbers, one or several, as (N,) int64. UserError, with all that there are, for any other."""
    several = [] if labels is None else [labels] if np.ndim(labels) == 0 else list(labels)
    if not several:
        raise UserError("no class: give at least one")
    numbers = {name.lower(): i for i, name in enumerate(classes)}
    found = []
    for label in several:
        text = str(label).strip()
        number = numbers.get(text.lower(), int(text) if text.isdecimal() else -1)
        if not 0 <= number < len(classes):
            there = ", ".join(f"{i} {name}" for i, name in enumerate(classes))
            raise UserError(f"no class {text!r}: there are {there}")
        found.append(number)
    return np.array(found)


def usable_pictures(images, smallest=1, factor=1, name="images"):
    """Pictures (N, H, W, 3), or one (H, W, 3), uint8 or in [0, 1], as float32 in [0, 1]. UserError for any other."""
    pictures = _array(name, images)
    pictures = pictures[None] if pictures.ndim == 3 else pictures
    if pictures.ndim != 4 or not pictures.size or pictures.shape[3] != 3:
        raise UserError(f"{name}: expected pictures of shape (N, H, W, 3), got {pictures.shape}")
    if pictures.dtype == np.uint8:
        return _of_size(pictures, smallest, factor, name).astype(np.float32) / 255
    if pictures.dtype.kind != "f" or not ((pictures >= 0) & (pictures <= 1)).all():
        raise UserError(f"{name}: expected uint8, or real numbers from 0 to 1")
    return _of_size(pictures, smallest, factor, name).astype(np.float32)


def usable_maps(images, classes, f):
    """Semantic maps (N, H, W), or one (H, W), of whole numbers below the number of classes. UserError for any other."""
    maps = _array("images", images)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or not maps.size or maps.dtype.kind not in "iu":
        raise UserError(f"images: expected maps (N, H, W) of whole numbers, got {maps.dtype} {maps.shape}")
    if maps.min() < 0 or maps.max() >= len(classes):
        there = ", ".join(f"{i} {name}" for i, name in enumerate(classes))
        raise UserError(f"images: a map holds the numbers {maps.min()} to {maps.max()}, where there are {there}")
    return _of_size(maps, 1, f)


def usable_masks(masks, pictures):
    """Masks (N, H, W), or one (H, W) for all, true or not 0 where to draw, as booleans. UserError for any other."""
    if masks is None:
        raise UserError("a model of masked pictures needs masks: true where to draw")
    masks = _array("masks", masks)
    masks = np.broadcast_to(masks, (len(pictures), *masks.shape)) if masks.ndim == 2 else masks
    if masks.shape != pictures.shape[:3]:
        raise UserError(f"masks: expected shape {pictures.shape[:3]} like the pictures, got {masks.shape}")
    if masks.dtype.kind not in "biuf":
        raise UserError(f"masks: expected true or false, got {masks.dtype}")
    return masks > 0.5 if masks.dtype.kind == "f" else masks != 0


def _array(name, given):
    """What is given, as an array. UserError for rows of several lengths."""
    try:
        return np.asarray(given)
    except ValueError:
        raise UserError(f"{name}: expected one array, got pictures of several sizes") from None


def _of_size(pictures, smallest, factor, name="images"):
    height, width = pictures.shape[1:3]
    if height % factor or width % factor:
        raise UserError(f"{name}: {height} x {width} is not divisible by {factor}: use multiples of {factor} pixels")
    if min(height, width) < smallest:
        raise UserError(f"{name}: {height} x {width} pixels are too few: use {smallest} or more")
    return pictures


def reduced(pictures, f):
    """Pictures (N, H, W, 3) uint8 of f times fewer pixels a side, by averaging -> float32 in [0, 1]."""
    N, H, W, C = pictures.shape
    means = (to_signed(pictures).reshape(N, H // f, f, W // f, f, C).mean(axis=(2, 4)) + 1) / 2
    return means.clip(0, 1)
