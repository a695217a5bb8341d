"""How good a pipeline is, in figures: what its autoencoder loses, whether its pictures are the ones asked for, and how
they compare with real ones. report.py measures a whole pipeline; the other files hold the measures.
"""

from minild.evaluation.autoencoding import codes, rebuild
from minild.evaluation.clip import CLIP, clip_scores, load_clip, load_clip_for, retrieve
from minild.evaluation.measures import (
    codebook_use,
    frechet_distance,
    nearest,
    precision_recall,
    psnr,
    ssim,
    wilson_interval,
)
from minild.evaluation.perceptual import features, load_perceptual, lpips
from minild.evaluation.report import evaluate, format_report

__all__ = [
    "CLIP", "clip_scores", "codebook_use", "codes", "evaluate", "features", "format_report", "frechet_distance",
    "load_clip", "load_clip_for", "load_perceptual", "lpips", "nearest", "precision_recall", "psnr", "rebuild",
    "retrieve", "ssim", "wilson_interval",
]  # fmt: skip
