"""Measures of arrays alone: PSNR and SSIM, and of sets of features or pictures, distances, coverage, neighbours."""

import math

import numpy as np

from minild.evaluation.pictures import pair, to_unit

WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window, in pixels
C1, C2 = 0.01**2, 0.03**2  # (K L)^2 with L = 1
NUMBERS = 1 << 23  # of the real pictures that are compared at once, as float64: 64 MB
NEIGHBOURS = 3  # k of precision and recall
Z = 1.959964  # standard deviations to either side that hold 95 % of a normal distribution


def psnr(x, y):
    """Peak signal-to-noise ratio of each picture, 10 log10(1 / mean (x - y)²), in dB -> (N,) float64.

    x, y: (N, H, W, C), float in [0, 1] or uint8, which is divided by 255: the peak is 1. Equal pictures have inf.
    """
    x, y = pair(x, y)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(((x - y) ** 2).mean(axis=(1, 2, 3)))


def ssim(x, y):
    """Structural similarity of each picture (Wang et al. 2004, equation 13), at most 1 -> (N,) float64.

    ((2 μx μy + C1)(2 σxy + C2)) / ((μx² + μy² + C1)(σx² + σy² + C2)) with μ, σ under a Gaussian window of 11 x 11
    pixels, σ = 1.5; C1 = 0.01², C2 = 0.03²; the mean over all windows wholly inside, and over the channels, each taken
    alone. x, y: (N, H, W, C), H and W at least 11, float in [0, 1] or uint8, which is divided by 255.
    """
    x, y = pair(x, y)
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


def precision_recall(real, drawn, k=NEIGHBOURS):
    """The share of the drawn features that lie where real ones are, and of the real ones that lie where drawn ones are.

    (Kynkäänniemi et al. 2019, arXiv 1904.06991, equations 1 and 2.) Where a set of features "is": in the balls around
    each of its members that reach to the k-th nearest other member. real (N, C), drawn (M, C), more than k of each ->
    (precision, recall), each in [0, 1].
    """
    for name, x in (("real", real), ("drawn", drawn)):
        if x.ndim != 2 or len(x) <= k:
            raise ValueError(f"{name}: expected shape (N, C) with more than k = {k} rows, got {x.shape}")
    between = _distances(real, drawn)  # N,M
    in_real = (between <= _reach(real, k)[:, None]).any(axis=0)
    in_drawn = (between.T <= _reach(drawn, k)[:, None]).any(axis=0)
    return float(in_real.mean()), float(in_drawn.mean())


def _reach(x, k):
    """The distance of each row to its k-th nearest other row."""
    distances = _distances(x, x)
    np.fill_diagonal(distances, np.inf)
    return np.partition(distances, k - 1, axis=1)[:, k - 1]


def _distances(x, y):
    """Euclidean distances (N, M) of the rows of x (N, C) and y (M, C), in pieces: by differences, exact near zero."""
    step = max(1, NUMBERS // y.size)
    parts = ([x[i : i + step, None], y[None]] for i in range(0, len(x), step))
    return np.concatenate([np.sqrt(((a - b) ** 2).sum(axis=2)) for a, b in parts])


def wilson_interval(share, count, z=Z):
    """The 95 % interval of a share in [0, 1] that was found in `count` trials -> (low, high).

    (p + z²/2n ± z √(p (1 - p)/n + z²/4n²)) / (1 + z²/n) (Wilson 1927, J. Am. Stat. Assoc. 22): it stays in [0, 1], and
    a share of 0 or 1 has one, too.
    """
    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"share: expected one in [0, 1] of at least one trial, got {share} of {count}")
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((share + z * z / (2 * count) + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def codebook_use(indices, size):
    """How a codebook of `size` codes is used -> (the share of codes that occur, the perplexity exp(-Σ p log p)).

    p are the frequencies of the codes among `indices`, integers of any shape; all used alike have a perplexity of size.
    """
    counts = np.bincount(np.asarray(indices).ravel(), minlength=size)
    p = counts[counts > 0] / counts.sum()
    return float((counts > 0).mean()), float(np.exp(-(p * np.log(p)).sum()))


def nearest(queries, pictures, count):
    """The `count` pictures with the least mean squared error to each query, nearest first -> (N, count) indices.

    queries (N, H, W, C), pictures (M, H, W, C), float in [0, 1] or uint8. |q - p|² = |q|² - 2 q·p + |p|² makes it one
    matrix product; |q|² changes no order.
    """
    q = to_unit("queries", queries).reshape(len(queries), -1)
    distances = np.empty((len(q), len(pictures)))
    at_once = max(1, NUMBERS // q.shape[1])
    for start in range(0, len(pictures), at_once):
        p = to_unit("pictures", pictures[start : start + at_once])
        p = p.reshape(len(p), -1)
        distances[:, start : start + len(p)] = (p * p).sum(axis=1) - 2 * q @ p.T
    return np.argsort(distances, axis=1, kind="stable")[:, :count]
