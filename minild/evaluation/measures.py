"""How good a pipeline is, in figures: what its autoencoder loses, and whether its pictures are the ones asked for."""

import numpy as np
from tqdm import tqdm

from minild.backend import to_device, to_host
from minild.data import judge
from minild.data.location import data_path
from minild.data.pictures import gather, to_signed
from minild.data.shapes import BASE, Shapes
from minild.models import LPIPS

WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window, in pixels
C1, C2 = 0.01**2, 0.03**2  # (K L)^2 with L = 1
RETRIEVALS = 300  # pictures drawn where count is not given
NEAREST = 5
PIXELS = 1 << 16  # rebuilt at once: 64 pictures of 32 x 32
NUMBERS = 1 << 23  # of the real pictures that are compared at once, as float64: 64 MB

# What a report says of each figure, and how; shares in per cent.
LINES = {
    "rebuilt": ("pictures rebuilt by the autoencoder", "{:,}"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.3f}"),
    "lpips": ("LPIPS, by minild's own network", "{:.4f}"),
    "frechet": ("Fréchet distance of the rebuilt, same network", "{:.2f}"),
    "steps": ("DDIM steps", "{}"),
    "guidance_scale": ("guidance scale", "{:g}"),
    "seed": ("seed", "{}"),
    "drawn": ("pictures drawn", "{:,}"),
    "candidates": ("distinct real pictures compared with", "{:,}"),
    "top1": ("nearest is of the caption asked for", "{:.2%}"),
    "top5": (f"one of the {NEAREST} nearest is", "{:.2%}"),
    "chance": ("nearest would be, by chance", "{:.2%}"),
    "background": ("background as asked for", "{:.1%}"),
    "shapes": ("shapes as asked for", "{:.1%}"),
    "colours": ("colours as asked for", "{:.1%}"),
    "relation": ("relation as asked for", "{:.1%}"),
    "all": ("all of it as asked for", "{:.1%}"),
    "withheld": ("all of it, pairs withheld in training", "{:.1%}"),
}


def psnr(x, y):
    """Peak signal-to-noise ratio of each picture, 10 log10(1 / mean (x - y)²), in dB -> (N,) float64.

    x, y: (N, H, W, C), float in [0, 1] or uint8, which is divided by 255: the peak is 1. Equal pictures have inf.
    """
    x, y = _pair(x, y)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(((x - y) ** 2).mean(axis=(1, 2, 3)))


def ssim(x, y):
    """Structural similarity of each picture (Wang et al. 2004, equation 13), at most 1 -> (N,) float64.

    ((2 μx μy + C1)(2 σxy + C2)) / ((μx² + μy² + C1)(σx² + σy² + C2)) with μ, σ under a Gaussian window of 11 x 11
    pixels, σ = 1.5; C1 = 0.01², C2 = 0.03²; the mean over all windows wholly inside, and over the channels, each taken
    alone. x, y: (N, H, W, C), H and W at least 11, float in [0, 1] or uint8, which is divided by 255.
    """
    x, y = _pair(x, y)
    if min(x.shape[1:3]) < WINDOW:
        raise ValueError(f"x: expected a height and width of at least {WINDOW}, got shape {x.shape}")
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    contrast_structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * contrast_structure).mean(axis=(1, 2, 3))


def _blur(x):
    """The Gaussian mean of every window wholly inside, one axis, then the other: (N, H, W, C) -> (N, H-10, W-10, C)."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):
        x = np.lib.stride_tricks.sliding_window_view(x, WINDOW, axis=axis) @ weights
    return x


def _pair(x, y):
    x, y = (_to_unit(name, pictures) for name, pictures in (("x", x), ("y", y)))
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape of x, {x.shape}, got {y.shape}")
    return x, y


def _to_unit(name, pictures):
    """Pictures as float64 in [0, 1]."""
    if pictures.ndim != 4:
        raise ValueError(f"{name}: expected shape (N, H, W, C), got {pictures.shape}")
    if pictures.dtype != np.uint8 and pictures.dtype.kind != "f":
        raise ValueError(f"{name}: expected dtype uint8 or float, got {pictures.dtype}")
    return pictures.astype(np.float64) / (255 if pictures.dtype == np.uint8 else 1)


def load_perceptual(device="cpu"):
    """The models.LPIPS that comes with minild: a small VGG trained on emoji and shapes (`minild train perceptual`)."""
    return LPIPS.from_pretrained(data_path("pretrained", "perceptual"), device=device)


def lpips(x, y, model):
    """The perceptual distance of each picture, by a models.LPIPS -> (N,) float64. x, y as for psnr."""
    x, y = _pair(x, y)
    pairs = zip(_signed_batches(x, model.device), _signed_batches(y, model.device))
    return np.concatenate([to_host(model(*pair)) for pair in pairs]).astype(float)


def features(pictures, model):
    """The means over the pixels of each map of the coarsest level of a models.LPIPS -> (N, C) float64."""
    batches = _signed_batches(_to_unit("pictures", pictures), model.device)
    return np.concatenate([to_host(model.features(x)[-1].mean(axis=(1, 2))) for x in batches]).astype(float)


def _signed_batches(pictures, device):
    """Pictures in [0, 1] -> float32 in [-1, 1] on the device, some at a time."""
    at_once = max(1, PIXELS // (pictures.shape[1] * pictures.shape[2]))
    for start in range(0, len(pictures), at_once):
        yield to_device((2 * pictures[start : start + at_once] - 1).astype(np.float32), device)


def frechet_distance(first, second):
    """‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½) of the normal distributions of two sets of features, (N, C) and (M, C).

    (Heusel et al. 2017, arXiv 1706.08500, equation 6: with Inception's features it is the FID.) The eigenvalues of
    Σ₁ Σ₂ are those of the symmetric Σ₁^½ Σ₂ Σ₁^½.
    """
    means = first.mean(axis=0) - second.mean(axis=0)
    one, two = (np.cov(x, rowvar=False, bias=True) for x in (first, second))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return max(0.0, float(means @ means + np.trace(one) + np.trace(two) - 2 * mixed))


def rebuild(vae, pictures, progress=False):
    """Pictures (N, H, W, 3) uint8, encoded without noise and decoded -> (N, H, W, 3) float32 in [0, 1]."""
    at_once = max(1, PIXELS // (pictures.shape[1] * pictures.shape[2]))
    rebuilt = []
    with tqdm(total=len(pictures), desc="rebuild", unit="picture", delay=1, disable=not progress) as bar:
        for start in range(0, len(pictures), at_once):
            x = to_signed(pictures[start : start + at_once]).astype(vae.dtype)
            y = vae.decode(vae.mean_latent(to_device(x, vae.device)))
            rebuilt.append(np.clip(to_host(y).astype(np.float32) / 2 + 0.5, 0, 1))
            bar.update(len(x))
    return np.concatenate(rebuilt)


def nearest(queries, pictures, count):
    """The `count` pictures with the least mean squared error to each query, nearest first -> (N, count) indices.

    queries (N, H, W, C), pictures (M, H, W, C), float in [0, 1] or uint8. |q - p|² = |q|² - 2 q·p + |p|² makes it one
    matrix product; |q|² changes no order.
    """
    q = _to_unit("queries", queries).reshape(len(queries), -1)
    distances = np.empty((len(q), len(pictures)))
    at_once = max(1, NUMBERS // q.shape[1])
    for start in range(0, len(pictures), at_once):
        p = _to_unit("pictures", pictures[start : start + at_once])
        p = p.reshape(len(p), -1)
        distances[:, start : start + len(p)] = (p * p).sum(axis=1) - 2 * q @ p.T
    return np.argsort(distances, axis=1, kind="stable")[:, :count]


def evaluate(pipeline, train, test, count=None, seed=0, steps=50, guidance_scale=None, progress=True):
    """Measure a pipeline on a data set's two splits -> {name: figure}, of those in LINES; shares in [0, 1].

    Reconstruction: PSNR of the test pictures through the autoencoder and, where they are 11 pixels or more, SSIM, LPIPS
    and the Fréchet distance between them and the rebuilt, the last two by the network of load_perceptual.
    Shapes: the share of the pictures drawn for the test captions that minild.data.judge finds to follow them.
    Other sets: pictures are drawn for the captions of random train pictures; how often the nearest of all the set's
    distinct pictures, and one of the five nearest (where there are more than five), has the caption asked for.

    count           pictures to draw, and at most that many to rebuild; None for 300 (shapes and rebuilding: all)
    seed            of the random choice, and of the first picture drawn
    guidance_scale  1 or less is none; None for the one recorded with the model, 7.5 where there is none
    """
    pictures, _ = gather(test, count)
    rebuilt = rebuild(pipeline.vae, pictures, progress)
    figures = {"rebuilt": len(pictures), "psnr": _mean(psnr, rebuilt, pictures)}
    if min(pictures.shape[1:3]) >= WINDOW:
        figures["ssim"] = _mean(ssim, rebuilt, pictures)
        model = load_perceptual()
        figures["lpips"] = float(lpips(rebuilt, pictures, model).mean())
        figures["frechet"] = frechet_distance(features(rebuilt, model), features(pictures, model))
    if guidance_scale is None:
        guidance_scale = pipeline.guidance_scale
    settings = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed}

    def draw(captions):
        size = pictures.shape[1:3]
        return pipeline.text_to_image(captions, sampler="ddim", size=size, progress=progress, **settings)

    if isinstance(test, Shapes):
        drawn = _faithfulness(draw, test, len(pictures), progress)
    else:
        drawn = _retrieval(draw, train, test, RETRIEVALS if count is None else count, seed)
    return figures | settings | drawn


def _mean(measure, x, y):
    """The mean of psnr or ssim, a picture at a time: their float64 intermediates are many times the pictures' size."""
    return float(np.mean([measure(x[i : i + 1], y[i : i + 1])[0] for i in range(len(x))]))


def _faithfulness(draw, test, count, progress):
    captions = [test.caption(i) for i in range(count)]
    drawn = draw(captions)
    k = test.size // BASE  # the judge reads pictures of 32 x 32
    drawn = drawn.reshape(count, BASE, k, BASE, k, 3).mean(axis=(2, 4))
    judged = tqdm(drawn, desc="judge", unit="picture", delay=1, disable=not progress)
    return {"drawn": count} | judge.report(judged, captions, [test.withheld(i) for i in range(count)])


def _retrieval(draw, train, test, count, seed):
    names = {}  # every distinct picture's captions, by its bytes
    (first, first_captions), (second, second_captions) = gather(train), gather(test)
    for picture, captions in zip([*first, *second], [*first_captions, *second_captions]):
        names.setdefault(picture.tobytes(), set()).update(captions)
    candidates = np.stack([np.frombuffer(data, np.uint8).reshape(first.shape[1:]) for data in names])
    names = list(names.values())

    rows = np.random.default_rng(seed).choice(len(first), min(count, len(first)), replace=False)
    asked = [first_captions[row][0] for row in rows]
    found = nearest(draw(asked), candidates, NEAREST)
    right = np.array([[caption in names[j] for j in row] for caption, row in zip(asked, found)])
    top5 = {"top5": float(right.any(axis=1).mean())} if len(candidates) > NEAREST else {}
    return {
        "drawn": len(asked),
        "candidates": len(candidates),
        "top1": float(right[:, 0].mean()),
        **top5,
        "chance": float(np.mean([sum(caption in several for several in names) for caption in asked])) / len(names),
    }


def format_report(figures):
    """The figures that evaluate gave -> aligned lines with their units."""
    width = max(len(LINES[name][0]) for name in figures)
    return "\n".join(f"{LINES[name][0]:<{width}}  {LINES[name][1].format(figure)}" for name, figure in figures.items())
